// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every path of XenStore that Vshmem reads or writes. `docs/xenstore-paths.md` says of each who writes
//! it, who may read it and when it goes; a test fails when a path is here and not there.

use vshmem_abi::Domid;

/// Each path is a pattern with at most one number, as `<domid>`, `<id>` or `<n>`.
macro_rules! patterns {
    ($($(#[$doc:meta])* $name:ident = $pattern:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $pattern;)*

        /// All of them.
        pub const ALL: &[&str] = &[$($pattern),*];
    };
}

patterns! {
    /// What is Vshmem's in dom0.
    ROOT = "/vshmem";
    /// The back-end that runs: [`super::Announcement`].
    BACKEND = "/vshmem/backend";
    /// The domains that are ready.
    READY = "/vshmem/ready";
    /// Name of a domain that is ready.
    READY_DOMAIN = "/vshmem/ready/<domid>";
    /// The domains that are enrolled.
    DOMAINS = "/vshmem/domain";
    /// A domain that is enrolled.
    DOMAIN = "/vshmem/domain/<domid>";
    /// The constructs.
    CONSTRUCTS = "/vshmem/construct";
    /// A construct.
    CONSTRUCT = "/vshmem/construct/<id>";
    /// All domains that there are.
    ALL_DOMAINS = "/local/domain";
    /// Number of one's own domain, relative to its home.
    OWN_DOMID = "domid";
    /// Name of a domain.
    NAME = "/local/domain/<domid>/name";
    /// What is Vshmem's in a guest.
    GUEST = "/local/domain/<domid>/data/vshmem";
    /// The guest's `vshmemd` that runs: [`super::Session`].
    FRONT = "/local/domain/<domid>/data/vshmem/front";
    /// Messages of the guest to the back-end.
    UP = "/local/domain/<domid>/data/vshmem/up";
    /// Messages of the back-end to the guest.
    DOWN = "/local/domain/<domid>/data/vshmem/down";
    /// What a watch on it hears when a domain comes.
    INTRODUCED = "@introduceDomain";
    /// What a watch on it hears when a domain is gone.
    RELEASED = "@releaseDomain";
}

/// The path of a pattern about a domain.
pub fn of_domain(pattern: &str, domid: Domid) -> String {
    pattern.replace("<domid>", &domid.to_string())
}

/// Where a construct is kept.
pub fn construct(id: i32) -> String {
    CONSTRUCT.replace("<id>", &id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_becomes_a_path() {
        assert_eq!(of_domain(UP, 7), "/local/domain/7/data/vshmem/up");
        assert_eq!(construct(1 << 30), "/vshmem/construct/1073741824");
    }
}
