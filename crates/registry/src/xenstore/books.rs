// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the back-end writes down in XenStore: for a later back-end the enrolled domains and the
//! constructs, for guests who is ready.

use super::{Others, XenStore, paths, read_if_there};
use crate::keeper::{Keeper, Kept};
use rustix::io::Errno;
use std::rc::Rc;
use vshmem_abi::wire::{Meta, Usage};
use vshmem_abi::{ABI_VERSION, Domid};
use zerocopy::{FromBytes, IntoBytes};

/// An enrolled domain, as it is kept: `GENERATION EPOCH NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDomain {
    /// Its number.
    pub domid: Domid,
    /// Generation of its `vshmemd`.
    pub generation: u64,
    /// Which `vshmemd` of the domain that is.
    pub epoch: u8,
    /// Its name.
    pub name: String,
}

impl KeptDomain {
    fn text(&self) -> String {
        format!("{:016x} {} {}", self.generation, self.epoch, self.name)
    }

    fn parse(domid: &str, value: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(value).ok()?.splitn(3, ' ');
        Some(Self {
            domid: domid.parse().ok()?,
            generation: super::number(words.next()?)?,
            epoch: words.next()?.parse().ok()?,
            name: words.next()?.to_owned(),
        })
    }
}

/// The books of a back-end in dom0.
#[derive(Clone)]
pub struct Books {
    store: Rc<dyn XenStore>,
}

impl Books {
    /// Makes the nodes that all else lies in, if they are not there: what guests may read, and what
    /// they may not.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn open(store: Rc<dyn XenStore>) -> Result<Self, Errno> {
        for (path, others) in [
            (paths::ROOT, Others::Read),
            (paths::READY, Others::Read),
            (paths::DOMAINS, Others::Nothing),
            (paths::CONSTRUCTS, Others::Nothing),
        ] {
            if read_if_there(&*store, path)?.is_none() {
                store.write(path, b"")?;
            }
            // Those that are made in it get the same.
            store.set_permissions(path, 0, others)?;
        }
        Ok(Self { store })
    }

    /// The constructs of an earlier back-end.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn constructs(&self) -> Result<Vec<Kept>, Errno> {
        self.all(paths::CONSTRUCTS, |_, value| parse(value))
    }

    /// The domains that were enrolled at an earlier back-end.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn domains(&self) -> Result<Vec<KeptDomain>, Errno> {
        self.all(paths::DOMAINS, KeptDomain::parse)
    }

    /// What the nodes below `dir` say. One that says nothing that a back-end of this version has
    /// written is removed.
    fn all<T>(&self, dir: &str, parse: impl Fn(&str, &[u8]) -> Option<T>) -> Result<Vec<T>, Errno> {
        let mut all = Vec::new();
        for name in self.store.directory(dir)? {
            let path = format!("{dir}/{name}");
            let Some(value) = read_if_there(&*self.store, &path)? else {
                continue;
            };
            match parse(&name, &value) {
                Some(kept) => all.push(kept),
                None => {
                    tracing::warn!(path, "left by a back-end of another version, and removed");
                    self.store.rm(&path)?;
                }
            }
        }
        Ok(all)
    }

    /// A domain is enrolled.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn enrol(&self, domain: &KeptDomain) -> Result<(), Errno> {
        let path = paths::of_domain(paths::DOMAIN, domain.domid);
        self.store.write(&path, domain.text().as_bytes())
    }

    /// A domain is gone, and all that follows from that is done.
    pub fn strike(&self, domid: Domid) {
        self.remove(&paths::of_domain(paths::DOMAIN, domid));
    }

    /// A domain is ready, all may know.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn announce(&self, domid: Domid, name: &str) -> Result<(), Errno> {
        let path = paths::of_domain(paths::READY_DOMAIN, domid);
        self.store.write(&path, name.as_bytes())
    }

    /// A domain is not ready any more.
    pub fn withdraw(&self, domid: Domid) {
        self.remove(&paths::of_domain(paths::READY_DOMAIN, domid));
    }

    /// The domains that are announced.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn announced(&self) -> Result<Vec<Domid>, Errno> {
        let names = self.store.directory(paths::READY)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    fn remove(&self, path: &str) {
        if let Err(errno) = self.store.rm(path) {
            tracing::error!(path, %errno, "cannot be removed from XenStore");
        }
    }
}

impl Keeper for Books {
    fn keep(&mut self, construct: &Kept) -> Result<(), Errno> {
        let path = paths::construct(construct.meta.id);
        let written = self.store.write(&path, text(construct).as_bytes());
        written.inspect_err(|errno| {
            tracing::error!(
                path, %errno,
                "a construct, or what has changed of it, cannot be kept in XenStore: see that xenstored runs \
                 and has memory"
            );
        })
    }

    fn forget(&mut self, id: i32) {
        self.remove(&paths::construct(id));
    }
}

/// A construct as it is kept: `VERSION META USAGE`, a number and the bytes of each in hexadecimal
/// digits.
fn text(kept: &Kept) -> String {
    let (meta, departed) = (kept.meta.as_bytes(), kept.departed.as_bytes());
    let (meta, departed) = (hex::encode(meta), hex::encode(departed));
    format!("{ABI_VERSION} {meta} {departed}")
}

fn parse(value: &[u8]) -> Option<Kept> {
    let mut words = str::from_utf8(value).ok()?.split(' ');
    if words.next()? != ABI_VERSION.to_string() {
        return None;
    }
    let mut word = || hex::decode(words.next()?).ok();
    let (meta, departed) = (word()?, word()?);
    Some(Kept {
        meta: Meta::read_from_bytes(&meta).ok()?,
        departed: Usage::read_from_bytes(&departed).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fake::FakeStore;
    use super::*;

    fn kept(id: i32) -> Kept {
        Kept {
            meta: Meta {
                id,
                key: -1,
                size: u64::MAX,
                ..Meta::default()
            },
            departed: Usage {
                atime: i64::MIN,
                ..Usage::default()
            },
        }
    }

    fn domain(domid: Domid) -> KeptDomain {
        KeptDomain {
            domid,
            generation: 0xfeed,
            epoch: 255,
            name: "a name with spaces".to_owned(),
        }
    }

    #[test]
    fn later_books_have_what_earlier_ones_kept_and_nothing_else() {
        let store = FakeStore::new();
        let mut books = Books::open(Rc::new(store.connect(0))).unwrap();
        for id in 1..=300 {
            books.keep(&kept(id)).unwrap();
        }
        books.forget(7);
        books.enrol(&domain(3)).unwrap();
        books.enrol(&domain(4)).unwrap();
        books.strike(4);
        let dom0 = store.connect(0);
        dom0.write("/vshmem/construct/500", b"1 00 00").unwrap();
        dom0.write("/vshmem/domain/9", b"\xff").unwrap();

        let books = Books::open(Rc::new(store.connect(0))).unwrap();
        let mut all = books.constructs().unwrap();
        all.sort_by_key(|kept| kept.meta.id);
        let want: Vec<Kept> = (1..=300).filter(|id| *id != 7).map(kept).collect();
        assert_eq!(all, want);
        assert_eq!(books.domains().unwrap(), [domain(3)]);
        assert_eq!(dom0.read("/vshmem/domain/9"), Err(Errno::NOENT));
    }

    #[test]
    fn guests_see_who_is_ready_and_not_what_there_is() {
        let store = FakeStore::new();
        store.introduce(3, "three");
        let mut books = Books::open(Rc::new(store.connect(0))).unwrap();
        books.keep(&kept(5)).unwrap();
        books.enrol(&domain(3)).unwrap();
        books.announce(3, "three").unwrap();
        let guest = store.connect(3);
        assert_eq!(guest.read("/vshmem/ready/3").unwrap(), b"three");
        assert_eq!(guest.directory(paths::READY).unwrap(), ["3"]);
        for hidden in ["/vshmem/construct/5", "/vshmem/domain/3"] {
            assert_eq!(guest.read(hidden), Err(Errno::ACCESS), "{hidden}");
        }
        for others in ["/vshmem/ready/3", "/vshmem/ready/9", "/vshmem/backend"] {
            assert_eq!(guest.write(others, b"x"), Err(Errno::ACCESS), "{others}");
        }
        books.withdraw(3);
        assert_eq!(guest.read("/vshmem/ready/3"), Err(Errno::NOENT));
    }
}
