// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tokens: how a lock word or a record in shared memory names a process of any domain.

use crate::Domid;

/// Domain and serial number of a client. A token names one client for ever: serial numbers are not
/// used twice while a `vshmemd` runs, and where a domain's number passes on to a later `vshmemd`
/// (on Xen: the same domain) that one has another epoch.
///
/// From the highest bit: 20 of the domain's number ([`crate::ids::MAX_DOMID`]), and the serial number,
/// of which 8 are the epoch and 36 count. The count 0 is the domain's `vshmemd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Nobody.
    pub const NONE: Self = Self(0);

    const SERIAL_BITS: u32 = 44;
    const COUNT_BITS: u32 = 36;

    /// Client `serial` of `domid`.
    pub const fn new(domid: Domid, serial: u64) -> Self {
        Self((domid as u64) << Self::SERIAL_BITS | serial & ((1 << Self::SERIAL_BITS) - 1))
    }

    /// The serial number of the client that is `count` in its epoch.
    pub const fn serial_in(epoch: u8, count: u64) -> u64 {
        (epoch as u64) << Self::COUNT_BITS | count & ((1 << Self::COUNT_BITS) - 1)
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

    /// Which `vshmemd` of its domain the client is or was of.
    pub const fn epoch(self) -> u8 {
        (self.0 >> Self::COUNT_BITS) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_domain_and_serial() {
        let token = Token::new(0x1234, 0x12_3456_789a);
        assert_eq!((token.domid(), token.serial()), (0x1234, 0x12_3456_789a));
        let last = Token::new(crate::ids::MAX_DOMID, u64::MAX);
        assert_eq!(last.domid(), crate::ids::MAX_DOMID);
        assert_eq!(Token::from_raw(token.raw()), token);
        assert_ne!(Token::new(1, 0), Token::NONE);
    }

    #[test]
    fn clients_with_the_same_count_of_two_epochs_have_other_tokens() {
        let of = |epoch| Token::new(3, Token::serial_in(epoch, 17));
        assert_eq!((of(0).epoch(), of(255).epoch()), (0, 255));
        assert_eq!((of(255).domid(), of(0).serial()), (3, 17));
        assert_ne!(of(1), of(2));
    }
}
