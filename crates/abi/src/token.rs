// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tokens: how a lock word or a record in shared memory names a process of any domain.

use crate::Domid;

/// Domain and serial number of a client. Both are never used twice while the back-end runs, so a
/// token names one client for ever. Serial 0 is the domain's `vshmemd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Nobody.
    pub const NONE: Self = Self(0);

    const SERIAL_BITS: u32 = 40;

    /// Client `serial` of `domid`.
    pub const fn new(domid: Domid, serial: u64) -> Self {
        Self((domid as u64) << Self::SERIAL_BITS | serial & ((1 << Self::SERIAL_BITS) - 1))
    }

    /// What a word of shared memory says.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As it stands in a word of shared memory.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The domain.
    pub const fn domid(self) -> Domid {
        (self.0 >> Self::SERIAL_BITS) as Domid
    }

    /// The client's number in its domain.
    pub const fn serial(self) -> u64 {
        self.0 & ((1 << Self::SERIAL_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_domain_and_serial() {
        let token = Token::new(0x1234, 0x12_3456_789a);
        assert_eq!((token.domid(), token.serial()), (0x1234, 0x12_3456_789a));
        assert_eq!(Token::from_raw(token.raw()), token);
        assert_ne!(Token::new(1, 0), Token::NONE);
    }
}
