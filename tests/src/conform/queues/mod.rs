// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts of calls on message queues.
//!
//! The kernel lets go all senders for which there is room, and all receivers at an `IPC_SET`, and
//! leaves to its scheduler who of them is first. Scripts avoid both (see `is_certain` in
//! [`script::Call`]): of those who wait to send into a queue, one at most has a message that could ever
//! fit into it.

pub mod generate;
pub mod script;
