// SPDX-License-Identifier: MIT OR Apache-2.0
//! The front-end as a program, with a real back-end, spoken to in raw messages.

mod bells;
mod faults;
mod hostile;
mod log;
mod queues;
mod regions;
mod segments;
mod sets;
mod world;
