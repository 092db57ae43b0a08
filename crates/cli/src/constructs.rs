// SPDX-License-Identifier: MIT OR Apache-2.0
//! Constructs as `vshmem` lists them, and as its JSON has them (`docs/json.md`): the routed ones, which a
//! daemon tells, and the kernel's own, which `/proc/sysvipc` does.

use crate::Failure;
use crate::ask::Daemon;
use crate::show::{self, Users};
use crate::survey::{Survey, list};
use serde::Serialize;
use std::collections::HashMap;
use vshmem_abi::Kind;
use vshmem_abi::wire::{MODE_DEST, MODE_LOCKED, Meta, QueueStat, Stat, State};

/// A construct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Construct {
    /// Key, as `0x56d00009`.
    pub key: String,
    /// Public id.
    pub id: i32,
    /// Whether it is Vshmem's; else it is the kernel's.
    pub routed: bool,
    /// Name of the owner.
    pub owner: String,
    /// Owner.
    pub uid: u32,
    /// Group of the owner.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Group of the creator.
    pub cgid: u32,
    /// Permissions in octal, as `0600`.
    pub mode: String,
    /// What is special about it: `dest`, `lost`, `locked`.
    pub status: Vec<&'static str>,
    /// Name of the owner domain, if it can be told.
    pub domain: Option<String>,
    /// Number of the owner domain; of the kernel's own none.
    pub domid: Option<u32>,
    /// Pid of the creator in its own domain; the kernel does not tell it of sets and queues.
    pub cpid: Option<i32>,
    /// Made, or changed by `IPC_SET`: seconds since the epoch, as all times; 0: never.
    pub ctime: i64,
    /// Seconds since it was made, changed or used.
    pub idle: i64,
    /// Who has it attached, or open.
    pub holders: Vec<Holder>,
    /// What its kind has.
    #[serde(flatten)]
    pub of: Of,
}

/// The processes of one domain that have a construct.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Name of the domain.
    pub domain: String,
    /// Its number.
    pub domid: u32,
    /// How many.
    pub processes: u64,
}

/// What constructs of one kind have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Of {
    /// A segment.
    Shm {
        /// Its size.
        bytes: u64,
        /// Attachments of all domains.
        nattch: u64,
        /// Last attach.
        atime: i64,
        /// Last detach.
        dtime: i64,
        /// Pid of the last attach or detach in its own domain.
        lpid: i32,
        /// Bytes in memory.
        resident_bytes: u64,
    },
    /// A semaphore set.
    Sem {
        /// Its semaphores.
        nsems: u64,
        /// Last `semop`.
        otime: i64,
        /// Last `SETVAL` or `SETALL`, which the kernel does not tell.
        setval_time: Option<i64>,
    },
    /// A message queue.
    Msg {
        /// Messages in it.
        messages: u64,
        /// Bytes of their texts.
        used_bytes: u64,
        /// Bytes that may be in it (`msg_qbytes`), which the kernel does not tell.
        limit_bytes: Option<u64>,
        /// Last `msgsnd`.
        stime: i64,
        /// Last `msgrcv`.
        rtime: i64,
        /// Pid of the last `msgsnd` in its own domain.
        lspid: i32,
        /// Pid of the last `msgrcv`.
        lrpid: i32,
    },
}

impl Construct {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self.of {
            Of::Shm { .. } => Kind::Shm,
            Of::Sem { .. } => Kind::Sem,
            Of::Msg { .. } => Kind::Msg,
        }
    }

    /// Its attachments, or else the processes that have it open.
    pub fn in_use(&self) -> u64 {
        let processes = self.holders.iter().map(|holder| holder.processes).sum();
        match self.of {
            Of::Shm { nattch, .. } => nattch.max(processes),
            Of::Sem { .. } | Of::Msg { .. } => processes,
        }
    }

    fn last_used(&self) -> i64 {
        let used = match self.of {
            Of::Shm { atime, dtime, .. } => atime.max(dtime),
            Of::Sem {
                otime, setval_time, ..
            } => otime.max(setval_time.unwrap_or(0)),
            Of::Msg { stime, rtime, .. } => stime.max(rtime),
        };
        used.max(self.ctime)
    }
}

/// What a construct is called in a sentence.
pub fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Shm => "segment",
        Kind::Sem => "semaphore set",
        Kind::Msg => "message queue",
    }
}

/// The routed constructs of these kinds, as `daemon`, which is of domain `name`, tells.
pub fn routed(
    name: &str,
    daemon: &Daemon,
    survey: &Survey,
    kinds: &[Kind],
) -> Result<Vec<Construct>, Failure> {
    let mut maker = Maker::new(survey);
    let mut all = Vec::new();
    for &kind in kinds {
        match kind {
            Kind::Shm => {
                let segments: Vec<Stat> = list(name, daemon, kind)?;
                all.extend(segments.iter().map(|stat| maker.segment(stat)));
            }
            Kind::Sem => {
                let sets: Vec<Stat> = list(name, daemon, kind)?;
                all.extend(sets.iter().map(|stat| maker.set(stat)));
            }
            Kind::Msg => {
                let queues: Vec<QueueStat> = list(name, daemon, kind)?;
                all.extend(queues.iter().map(|stat| maker.queue(stat)));
            }
        }
    }
    Ok(all)
}

/// What makes constructs of what daemons tell.
pub struct Maker<'a> {
    survey: &'a Survey,
    holders: HashMap<i32, Vec<Holder>>,
    users: Users,
    now: i64,
}

impl<'a> Maker<'a> {
    /// With what the domains say of themselves.
    pub fn new(survey: &'a Survey) -> Self {
        let mut holders: HashMap<i32, Vec<Holder>> = HashMap::new();
        for domain in &survey.domains {
            for held in &domain.held {
                holders.entry(held.id).or_default().push(Holder {
                    domain: domain.name.clone(),
                    domid: domain.domid,
                    processes: held.processes,
                });
            }
        }
        Self {
            survey,
            holders,
            users: Users::default(),
            now: show::now(),
        }
    }

    fn make(&mut self, meta: &Meta, of: Of) -> Construct {
        let mut status = Vec::new();
        match State::from_raw(meta.state) {
            State::Dest => status.push("dest"),
            State::Lost => status.push("lost"),
            State::Live | State::Free => {}
        }
        if meta.mode & MODE_LOCKED != 0 {
            status.push("locked");
        }
        let mut made = Construct {
            key: show::key(meta.key),
            id: meta.id,
            routed: true,
            owner: self.users.name(meta.uid),
            uid: meta.uid,
            gid: meta.gid,
            cuid: meta.cuid,
            cgid: meta.cgid,
            mode: format!("{:04o}", meta.mode & 0o777),
            status,
            domain: self.survey.name(meta.owner).map(str::to_owned),
            domid: Some(meta.owner),
            cpid: Some(meta.cpid),
            ctime: meta.ctime,
            idle: 0,
            holders: self.holders.get(&meta.id).cloned().unwrap_or_default(),
            of,
        };
        made.idle = (self.now - made.last_used()).max(0);
        made
    }

    /// A segment.
    pub fn segment(&mut self, stat: &Stat) -> Construct {
        let usage = &stat.usage;
        self.make(
            &stat.meta,
            Of::Shm {
                bytes: stat.meta.size,
                nattch: usage.nattch,
                atime: usage.atime / 1_000_000_000,
                dtime: usage.dtime / 1_000_000_000,
                lpid: usage.lpid,
                resident_bytes: usage.resident.saturating_mul(vshmem_abi::PAGE_SIZE),
            },
        )
    }

    /// A set.
    pub fn set(&mut self, stat: &Stat) -> Construct {
        self.make(
            &stat.meta,
            Of::Sem {
                nsems: stat.meta.size,
                otime: stat.usage.atime / 1_000_000_000,
                setval_time: Some(stat.usage.dtime / 1_000_000_000),
            },
        )
    }

    /// A queue.
    pub fn queue(&mut self, stat: &QueueStat) -> Construct {
        let queue = &stat.queue;
        self.make(
            &stat.meta,
            Of::Msg {
                messages: queue.qnum,
                used_bytes: queue.cbytes,
                limit_bytes: Some(queue.qbytes),
                stime: queue.stime,
                rtime: queue.rtime,
                lspid: queue.lspid,
                lrpid: queue.lrpid,
            },
        )
    }
}

/// The kernel's own constructs of these kinds; none where it does not tell.
pub fn local(kinds: &[Kind]) -> Vec<Construct> {
    let mut users = Users::default();
    let mut all = Vec::new();
    for &kind in kinds {
        let text = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        all.extend(of_kernel(kind, &text, show::now(), &mut users));
    }
    all
}

/// What a file of `/proc/sysvipc` lists.
fn of_kernel(kind: Kind, text: &str, now: i64, users: &mut Users) -> Vec<Construct> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let make = |line: &str| {
        let cells: HashMap<&str, &str> = header
            .iter()
            .copied()
            .zip(line.split_whitespace())
            .collect();
        let number = |name: &str| cells.get(name).and_then(|cell| cell.parse::<i64>().ok());
        let mode = cells
            .get("perms")
            .and_then(|perms| u32::from_str_radix(perms, 8).ok())?;
        let of = |name: &str| number(name).unwrap_or(0);
        let mut made = Construct {
            key: show::key(number("key")? as i32),
            id: number(match kind {
                Kind::Shm => "shmid",
                Kind::Sem => "semid",
                Kind::Msg => "msqid",
            })? as i32,
            routed: false,
            owner: users.name(of("uid") as u32),
            uid: of("uid") as u32,
            gid: of("gid") as u32,
            cuid: of("cuid") as u32,
            cgid: of("cgid") as u32,
            mode: format!("{:04o}", mode & 0o777),
            status: Vec::new(),
            domain: None,
            domid: None,
            cpid: number("cpid").map(|pid| pid as i32),
            ctime: of("ctime"),
            idle: 0,
            holders: Vec::new(),
            of: match kind {
                Kind::Shm => Of::Shm {
                    bytes: of("size") as u64,
                    nattch: of("nattch") as u64,
                    atime: of("atime"),
                    dtime: of("dtime"),
                    lpid: of("lpid") as i32,
                    resident_bytes: of("rss") as u64,
                },
                Kind::Sem => Of::Sem {
                    nsems: of("nsems") as u64,
                    otime: of("otime"),
                    setval_time: None,
                },
                Kind::Msg => Of::Msg {
                    messages: of("qnum") as u64,
                    used_bytes: of("cbytes") as u64,
                    limit_bytes: None,
                    stime: of("stime"),
                    rtime: of("rtime"),
                    lspid: of("lspid") as i32,
                    lrpid: of("lrpid") as i32,
                },
            },
        };
        if kind == Kind::Shm {
            for (bit, name) in [(MODE_DEST, "dest"), (MODE_LOCKED, "locked")] {
                if mode & bit != 0 {
                    made.status.push(name);
                }
            }
        }
        made.idle = (now - made.last_used()).max(0);
        Some(made)
    };
    lines.filter_map(make).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::survey::Told;
    use vshmem_abi::wire::{QueueUse, Usage};
    use vshmem_report::{DomainReport, Held};

    /// A domain `alpha` of number 2, in which two processes have the construct of these tests.
    pub fn survey() -> Survey {
        Survey {
            domains: vec![Told {
                socket: "alpha".into(),
                report: DomainReport {
                    name: "alpha".into(),
                    domid: 2,
                    held: vec![Held {
                        id: 1_300_000_000,
                        processes: 2,
                    }],
                    ..DomainReport::default()
                },
            }],
            ..Survey::default()
        }
    }

    /// Something of a construct that was last used in 1970.
    pub fn stat(state: State, mode: u32) -> Stat {
        Stat {
            meta: Meta {
                id: 1_300_000_000,
                key: -1,
                state: state as u32,
                mode,
                owner: 2,
                size: 4096,
                cpid: 77,
                ctime: 9,
                ..Meta::default()
            },
            usage: Usage {
                nattch: 3,
                atime: 10_000_000_000,
                ..Usage::default()
            },
        }
    }

    #[test]
    fn a_construct_has_its_domain_its_holders_and_its_state() {
        let survey = survey();
        let mut maker = Maker::new(&survey);
        maker.now = 100;
        let made = maker.segment(&stat(State::Live, 0o644));
        assert_eq!(
            (made.key.as_str(), made.mode.as_str()),
            ("0xffffffff", "0644")
        );
        assert_eq!(made.domain.as_deref(), Some("alpha"));
        assert_eq!((made.idle, made.holders[0].processes), (90, 2));
        for (state, mode, want) in [
            (State::Dest, 0o600, &["dest"][..]),
            (State::Live, 0o600 | MODE_LOCKED, &["locked"]),
            (State::Dest, 0o600 | MODE_LOCKED, &["dest", "locked"]),
            (State::Lost, 0o600, &["lost"]),
        ] {
            assert_eq!(maker.segment(&stat(state, mode)).status, want);
        }
    }

    #[test]
    fn what_the_kernel_lists_is_read_by_the_names_of_its_columns() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n\
                    1448272762          7  3600                  4096   300   301      1     0     0     0     0         50         60         40                  8192                     0\n";
        let made = of_kernel(Kind::Shm, text, 100, &mut Users::default());
        let [made] = &made[..] else {
            panic!("{made:?}");
        };
        assert_eq!(
            (made.key.as_str(), made.id, made.mode.as_str()),
            ("0x5652e37a", 7, "0600")
        );
        assert_eq!(
            (made.status.as_slice(), made.idle),
            (&["dest", "locked"][..], 40)
        );
        assert_eq!(
            (made.owner.as_str(), made.cpid, made.domid),
            ("root", Some(300), None)
        );
        let Of::Shm {
            nattch,
            resident_bytes,
            ..
        } = made.of
        else {
            panic!("{made:?}");
        };
        assert_eq!((nattch, resident_bytes), (1, 8192));
    }

    /// The names of all fields in some JSON.
    fn names(value: &serde_json::Value, into: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    into.push(name.clone());
                    names(value, into);
                }
            }
            serde_json::Value::Array(all) => all.iter().for_each(|value| names(value, into)),
            _ => {}
        }
    }

    /// Fails where `docs/json.md` lacks a field of what is given.
    pub fn assert_documented(json: &impl Serialize) {
        let mut all = Vec::new();
        names(&serde_json::to_value(json).unwrap(), &mut all);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/json.md");
        let page = std::fs::read_to_string(path).unwrap();
        for name in all {
            assert!(
                page.contains(&format!("`{name}`")),
                "docs/json.md lacks `{name}`"
            );
        }
    }

    #[test]
    fn every_field_of_a_construct_is_documented() {
        let survey = survey();
        let mut maker = Maker::new(&survey);
        let stat = stat(State::Live, 0);
        assert_documented(&maker.segment(&stat));
        assert_documented(&maker.set(&stat));
        let (meta, queue) = (stat.meta, QueueUse::default());
        assert_documented(&maker.queue(&QueueStat { meta, queue }));
    }
}
