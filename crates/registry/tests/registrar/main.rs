// SPDX-License-Identifier: MIT OR Apache-2.0
//! The registrar against domains that are faked, case by case and at random.

mod case;
mod deaths;
mod fake;
mod model;
mod policy;
mod restart;
mod semantics;
