// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts of calls on semaphore sets. What is different from segments: a call may not come back
//! until another process does something, or ever.
//!
//! A step whose process sleeps in an earlier call is another process's; only signals and `SIGKILL`
//! reach who sleeps. After each step the runner waits until every process has answered or sleeps
//! again, and notes who was woken; then all values, pids and counts are looked at.

pub mod generate;
pub mod run;
pub mod script;
