// SPDX-License-Identifier: MIT OR Apache-2.0
//! What operators say in `vshmem.toml` and what they are told: the policy of dom0, and that its
//! read-only is Xen's; metrics; `vshmem doctor`.

use super::shared::{LOG, make_all, mapped_by, world};
use super::{Suite, in_dom0};
use crate::actor::Actor;
use crate::wait_until;
use nix::errno::Errno;

/// Where an operator writes it.
const FILE: &str = "/etc/vshmem/vshmem.toml";

pub(super) fn run(suite: &mut Suite) {
    suite.check(
        "the policy of dom0 holds in guests, and Xen keeps memory read-only",
        policy,
    );
    suite.check("a guest tells its metrics", metrics);
    suite.check("the doctor finds dom0 and a guest well", doctor);
}

/// A configuration in force, until it is dropped.
pub(super) struct Configured<'a> {
    /// Where; none: in dom0.
    guest: Option<(&'a Suite, usize)>,
}

impl<'a> Configured<'a> {
    /// Writes the file and has the daemon there read it.
    pub(super) fn new(guest: Option<(&'a Suite, usize)>, text: &str) -> Self {
        let configured = Self { guest };
        configured.shell(&format!(
            "mkdir -p {} && printf '{text}' >{FILE}",
            FILE.rsplit_once('/').expect("a path").0
        ));
        configured.reload();
        configured
    }

    fn shell(&self, script: &str) {
        match self.guest {
            Some((suite, guest)) => suite.succeed(guest, &["sh", "-c", script]),
            None => in_dom0(&["sh", "-c", script]),
        };
    }

    /// Has the daemon read its file, and waits until it says so.
    fn reload(&self) {
        let name = self.guest.map_or("backend", |_| "local");
        self.shell(&format!(
            "said() {{ grep -c ': configured' {LOG}; }}; before=$(said); \
             kill -HUP $(head -n 1 /run/vshmem/{name}.pid); \
             until [ $(said) -gt $before ]; do sleep 0.1; done"
        ));
    }
}

impl Drop for Configured<'_> {
    fn drop(&mut self) {
        self.shell(&format!("rm {FILE}"));
        self.reload();
    }
}

fn policy(suite: &Suite) {
    const SHARED: i32 = 0x5600_f000;
    const HIDDEN: i32 = 0x5600_f100;
    const PAGES: usize = 20;
    let world = world(suite);
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let get_hidden = format!("get {HIDDEN} 0 0");
    assert_eq!(b.call(&get_hidden), Err(Errno::ENOENT));
    let rule = |domain, keys, access| {
        format!(
            "[[policy.rule]]\\ndomains = [\"{domain}\"]\\nkeys = \"{keys}\"\\naccess = \"{access}\"\\n"
        )
    };
    let rules = format!(
        "[policy]\\ndefault = \"read-write\"\\n{}{}",
        rule("dom2", "0x5600f000-0x5600f0ff", "read-only"),
        rule("dom2", "0x5600f100-0x5600f1ff", "none")
    );
    let configured = Configured::new(None, &rules);
    wait_until("the policy is in force", || {
        b.call(&get_hidden) == Err(Errno::EACCES)
    });
    let hidden = a.make(HIDDEN, 4096);
    assert_eq!(b.call(&get_hidden), Err(Errno::EACCES));
    make_all(&world, "a", SHARED, PAGES as u64 * 4096);
    let id = a.ok(&format!("get {SHARED} 0 0"));
    a.ok(&format!("at {id} 0"));
    a.ok("poke 0 0 9");
    let for_writing = mapped_by("dom2", true);
    assert_eq!(b.ok(&format!("get {SHARED} 0 0")), id);
    assert_eq!(b.call(&format!("at {id} 0")), Err(Errno::EACCES));
    b.ok(&format!("at {id} {}", libc::SHM_RDONLY));
    assert_eq!(b.ok("peek 0 0"), 9);
    assert_eq!(b.call(&format!("rm {id}")), Err(Errno::EACCES));
    let (mut sets, mut queues) = (Actor::of_sets(&world, "b"), Actor::of_queues(&world, "b"));
    assert_eq!(sets.call(&format!("get {SHARED} 0 0")), Err(Errno::EACCES));
    assert_eq!(queues.call(&format!("get {SHARED} 0")), Err(Errno::EACCES));
    let (reading, writing) = (mapped_by("dom2", false), mapped_by("dom2", true));
    assert!(reading >= PAGES, "{reading}");
    // Not one page more that dom2 could write to.
    assert_eq!(writing, for_writing);
    println!("pages of dom1 that dom2 has mapped for reading only: {reading}");
    drop(configured);
    wait_until("everything is allowed again", || {
        b.call(&get_hidden) == Ok(hidden)
    });
}

fn metrics(suite: &Suite) {
    const PAGES: u64 = 30;
    let world = world(suite);
    let address = "127.0.0.1:9464";
    let _configured = Configured::new(
        Some((suite, 1)),
        &format!("[metrics]\\nlisten = \"{address}\"\\n"),
    );
    let mut a = Actor::of(&world, "a");
    a.make(0x5600_f200, PAGES * 4096);
    let script =
        format!("ip link set lo up; until wget -q -O - http://{address}/metrics; do sleep 1; done");
    let text = suite.succeed(1, &["sh", "-c", &script]);
    let value = |series: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        let value = line.and_then(|value| value.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    };
    assert!(text.contains("domain=\"dom1\""), "{text}");
    assert!(text.contains("port=\"xen\""), "{text}");
    assert!(value("vshmem_constructs{kind=\"shm\",owner=\"own\"}") >= 1);
    let used = value("vshmem_grant_pages{state=\"used\"}");
    assert!(used >= PAGES, "{text}");
    assert!(value("vshmem_grant_pages{state=\"free\"}") > 0, "{text}");
    assert_eq!(value("vshmem_backend_connected"), 1);
    let nodes = |state| value(&format!("vshmem_xenstore_nodes{{state=\"{state}\"}}"));
    // What is below `data` of a guest, at least the session.
    assert!((2..200).contains(&nodes("used")), "{text}");
    assert_eq!(nodes("used") + nodes("free"), 1000);
}

fn doctor(suite: &Suite) {
    suite.succeed(1, &["vshmem", "doctor"]);
    let text = in_dom0(&["vshmem", "doctor"]);
    // What only Xen itself can tell.
    assert!(text.contains("the grant table of dom1 "), "{text}");
}
