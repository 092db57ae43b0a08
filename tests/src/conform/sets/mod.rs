// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts of calls on semaphore sets.

pub mod generate;
pub mod script;
