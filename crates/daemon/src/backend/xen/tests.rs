// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end of the Xen port over a XenStore in this process, with guests that are threads: sound
//! ones, over the link of a front-end, and others that write what they like.

mod deaths;
mod hostile;
mod policy;
mod restarts;
mod sound;
mod world;
