// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain of a check: a process of a guest, which does with its port what it is asked for.

use super::suite::Memory;
use super::suite::local::{self, Mapped};
use super::words::{doze, home, of_error, read, store};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::str::FromStr;
use vshmem_abi::grants::How;
use vshmem_engine::mapping::{Place, Source};
use vshmem_gnt::xen::{XenPort, XenRegion};
use vshmem_gnt::{GrantRef, LocalPort, Port, PortError, Region, RegionOptions};
use vshmem_registry::xenstore::XenStore;

/// Where gntalloc's limit stands.
const LIMIT: &str = "/sys/module/xen_gntalloc/parameters/limit";

/// Answers requests until it is killed.
pub fn run(number: &str) -> ExitCode {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(Resource::Nofile, raised).expect("setrlimit");
    let store = store();
    let (domid, home) = home(&store);
    let base = format!("{home}/agent/{number}");
    let (ask, answer) = (format!("{base}/ask"), format!("{base}/answer"));
    store.watch(&ask, "ask").expect("XenStore");
    let mut agent = Agent {
        port: XenPort::new(domid).unwrap_or_else(|error| panic!("{error}")),
        regions: HashMap::new(),
        kept: HashMap::new(),
        mapped: HashMap::new(),
        last: 0,
    };
    store.write(&answer, b"0 ready").expect("XenStore");
    let mut done = String::new();
    loop {
        let request = read(&store, &ask).filter(|request| *request != done);
        let Some(request) = request else {
            doze(&store);
            continue;
        };
        let words: Vec<&str> = request.split_whitespace().collect();
        let said = match agent.does(&words[1..]) {
            Ok(said) => format!("{} ok {said}", words[0]),
            Err(why) => format!("{} no {why}", words[0]),
        };
        store.write(&answer, said.as_bytes()).expect("XenStore");
        done = request;
    }
}

struct Agent {
    port: XenPort,
    regions: HashMap<u32, XenRegion>,
    /// Descriptors of regions, as clients have them.
    kept: HashMap<u32, (OwnedFd, How, u64)>,
    mapped: HashMap<u32, Mapped>,
    last: u32,
}

fn number<T: FromStr>(words: &[&str], at: usize) -> T {
    let word = words.get(at).and_then(|word| word.parse().ok());
    word.unwrap_or_else(|| panic!("word {at} of {words:?} is not the number it should be"))
}

/// What was done, or the word of an error.
type Said = Result<String, String>;

fn said<T: ToString>(result: Result<T, PortError>) -> Said {
    result.map(|done| done.to_string()).map_err(of_error)
}

fn done(result: Result<(), PortError>) -> Said {
    said(result.map(|()| ""))
}

impl Agent {
    fn does(&mut self, words: &[&str]) -> Said {
        let port = |at| LocalPort(number(words, at));
        match words[0] {
            "create" => {
                let options = RegionOptions {
                    huge_shift: 0,
                    reserve: false,
                    peer: words[2].parse().ok(),
                    read_only: words[3] == "read-only",
                };
                let region = self.port.create(number(words, 1), options);
                self.enter(region)
            }
            "grant" => {
                let region = &self.regions[&number(words, 1)];
                said(self.port.grant(region, number(words, 2)).map(|g| g.0))
            }
            "grant-read-only" => {
                let region = &self.regions[&number(words, 1)];
                let granted = self.port.grant_read_only(region, number(words, 2));
                said(granted.map(|g| g.0))
            }
            "end" => done(self.port.end_grant(GrantRef(number(words, 1)))),
            "map" => {
                let gref = GrantRef(number(words, 2));
                let region = self.port.map(number(words, 1), gref);
                self.enter(region)
            }
            "release" => {
                let region = self.regions.remove(&number(words, 1));
                region.expect("a region").release();
                Ok(String::new())
            }
            "drop" => {
                self.regions.remove(&number(words, 1));
                Ok(String::new())
            }
            "keep" => {
                let region = &self.regions[&number(words, 1)];
                let fd = region.fd().try_clone_to_owned().expect("a descriptor");
                self.last += 1;
                let kept = (fd, region.how(), region.len());
                self.kept.insert(self.last, kept);
                Ok(self.last.to_string())
            }
            "attach-kept" => {
                let (fd, how, len) = &self.kept[&number(words, 1)];
                let source = Source {
                    fd: std::os::fd::AsFd::as_fd(fd),
                    how: *how,
                    len: *len,
                };
                let access = rustix::mm::ProtFlags::READ;
                // SAFETY: a new mapping at an address of the kernel's choice, never unmapped.
                let mapped = unsafe { source.map(Place::anywhere(access)) };
                mapped.map(|_| String::new()).map_err(|e| format!("{e:?}"))
            }
            "attach" => {
                let region = &self.regions[&number(words, 1)];
                let mapped = Mapped::new(region, words[2] == "read-write");
                self.last += 1;
                self.mapped
                    .insert(self.last, mapped.map_err(|e| format!("{e:?}"))?);
                Ok(self.last.to_string())
            }
            "detach" => {
                self.mapped.remove(&number(words, 1));
                Ok(String::new())
            }
            "load" => {
                let byte = self.mapped[&number(words, 1)].load(number(words, 2));
                Ok(byte.to_string())
            }
            "is-zero" => {
                let zero = self.mapped[&number(words, 1)].is_zero(number(words, 2));
                Ok(zero.to_string())
            }
            "store" => {
                self.mapped[&number(words, 1)].store(number(words, 2), number(words, 3));
                Ok(String::new())
            }
            "unbound" => said(self.port.alloc_unbound(number(words, 1)).map(|p| p.0)),
            "bind" => {
                let bound = self.port.bind_interdomain(number(words, 1), port(2));
                said(bound.map(|p| p.0))
            }
            "notify" => done(self.port.notify(port(1))),
            "pass-notifier" => {
                local::pass_notifier(&mut self.port, port(1));
                Ok(String::new())
            }
            "take" => said(self.port.take(port(1)).map(|event| format!("{event:?}"))),
            "await" => {
                let event = local::await_event(&mut self.port, port(1));
                Ok(format!("{event:?}"))
            }
            "close" => done(self.port.close(port(1))),
            "limit" => {
                let before = std::fs::read_to_string(LIMIT).expect(LIMIT);
                write_limit(words[1]);
                Ok(before.trim().to_owned())
            }
            other => panic!("no such request: {other}"),
        }
    }

    fn enter(&mut self, region: Result<XenRegion, PortError>) -> Said {
        let region = region.map_err(of_error)?;
        self.last += 1;
        let granted = region.how() == How::Grants;
        let said = format!(
            "{} {} {} {} {}",
            self.last,
            region.len(),
            u32::from(granted),
            u32::from(region.has_futexes()),
            u32::from(region.is_read_only())
        );
        self.regions.insert(self.last, region);
        Ok(said)
    }
}

/// A file of sysfs is written in one piece, and not made.
fn write_limit(value: &str) {
    let file = rustix::fs::open(LIMIT, OFlags::WRONLY, Mode::empty()).expect(LIMIT);
    rustix::io::write(&file, value.as_bytes()).expect(LIMIT);
}
