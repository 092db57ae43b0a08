// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ports.

/// What one domain may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pages granted to other domains.
    pub grants: u64,
    /// Event channels.
    pub channels: u32,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        grants: 1 << 20,
        channels: 4095,
    };
}
