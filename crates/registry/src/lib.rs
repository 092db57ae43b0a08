// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registrar: the single arbiter of keys and ids.
//!
//! [`Registrar`] is the back-end's knowledge of all constructs, as a state machine that does no
//! I/O: the back-end gives it one request of one domain at a time, together with a way to ask
//! the other domains ([`Peers`]), and sends on what it answers. So a key has one winner however
//! many domains race for it, and every domain that knows a construct has heard of a change before
//! the one that made it gets its answer. Semantics are those of `ipc/util.c` and `ipc/shm.c`.
//!
//! Permissions and sizes are checked by the front-end before it asks, except for the limits that
//! concern all domains together (SHMMNI, SHMALL, SEMMNI, SEMMNS, MSGMNI).

mod env;
mod keeper;
mod registrar;
mod table;
pub mod xenstore;

pub use env::{Environment, NoAnswer, Peers, System};
pub use keeper::{Keeper, Kept, NoKeeper};
pub use registrar::{EnrolError, Refusal, Registrar};
