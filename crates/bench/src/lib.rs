// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the benchmarks and the report share: a world with two domains and programs to run in it,
//! processes, the machine, and statistics.

pub mod machine;
pub mod process;
pub mod stats;
pub mod world;

/// What goes wrong is told to whoever started this, and nobody else acts on it.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
