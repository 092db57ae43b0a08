// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is asked about constructs of one kind alone. What all kinds have in common is in
//! [`super::requests`].

mod bell;
mod queue;
mod segment;
mod set;
mod whole;
