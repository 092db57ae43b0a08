// SPDX-License-Identifier: MIT OR Apache-2.0
//! In dom0: runs the checks, with agents of the guests as domains.

use super::remote::{RemoteMemory, RemotePort, RemoteRegion, Wire};
use super::suite::World;
use super::words::{await_change, read, store};
use super::{checks, suite};
use std::cell::{Cell, OnceCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use vshmem_abi::Domid;
use vshmem_gnt::{Event, Limits, LocalPort, PortError};
use vshmem_registry::xenstore::XenStore;
use vshmem_registry::xenstore::library::Library;

/// What all checks share.
struct Machine {
    store: Rc<Library>,
    guests: Vec<Domid>,
    last_agent: Cell<u32>,
}

thread_local! {
    static MACHINE: OnceCell<Machine> = const { OnceCell::new() };
}

/// Gives the machine to what needs it.
fn machine<T>(what: impl FnOnce(&Machine) -> T) -> T {
    MACHINE.with(|machine| what(machine.get().expect("the machine")))
}

impl Machine {
    fn new(count: usize) -> Self {
        let store = store();
        store.watch("/local/domain", "guests").expect("XenStore");
        let guests = await_change(&store, "the guests", || {
            let domids = store.directory("/local/domain").ok()?;
            let domids = domids.iter().filter_map(|domid| domid.parse().ok());
            let serves = |domid: &Domid| {
                let node = format!("/local/domain/{domid}/data/suite/serves");
                read(&store, &node).is_some()
            };
            let mut guests: Vec<Domid> = domids.filter(serves).collect();
            // dom0 is the last: a domain as any other, but less like them.
            guests.sort_unstable_by_key(|&domid| (domid == 0, domid));
            (guests.len() == count).then_some(guests)
        });
        store.unwatch("/local/domain", "guests").expect("XenStore");
        Self {
            store: Rc::new(store),
            guests,
            last_agent: Cell::new(0),
        }
    }

    fn order(&self, guest: Domid, agent: u32, order: &str) {
        let node = format!("/local/domain/{guest}/data/suite/order/{agent}");
        self.store.write(&node, order.as_bytes()).expect("XenStore");
    }

    fn start(&self, guest: Domid) -> (u32, RemotePort) {
        let agent = self.last_agent.get() + 1;
        self.last_agent.set(agent);
        self.order(guest, agent, "start");
        let base = format!("/local/domain/{guest}/data/suite/agent/{agent}");
        let port = RemotePort {
            wire: Wire::new(&self.store, base),
            domid: guest,
        };
        (agent, port)
    }

    fn kill(&self, guest: Domid, agent: u32) {
        let node = format!("/local/domain/{guest}/data/suite/order/{agent}");
        self.store.watch(&node, &node).expect("XenStore");
        self.order(guest, agent, "kill");
        await_change(&self.store, "the death of an agent", || {
            read(&self.store, &node).is_none().then_some(())
        });
        self.store.unwatch(&node, &node).expect("XenStore");
    }
}

/// Agents, one in each guest in turn.
pub struct Guests {
    agents: Vec<(Domid, u32, Rc<Wire>)>,
    started: usize,
}

impl Guests {
    /// A domain in the guest of this index; they begin again behind the last.
    pub fn domain_in(&mut self, index: usize) -> RemotePort {
        machine(|machine| {
            let guest = machine.guests[index % machine.guests.len()];
            let (agent, port) = machine.start(guest);
            self.agents.push((guest, agent, port.wire.clone()));
            port
        })
    }
}

impl World for Guests {
    type Port = RemotePort;
    type Memory = RemoteMemory;

    // Xen says the same of what was never granted.
    const GONE: PortError = PortError::Refused;

    fn new(_: Limits) -> Self {
        Self {
            agents: Vec::new(),
            started: 0,
        }
    }

    fn domain(&mut self) -> RemotePort {
        self.started += 1;
        self.domain_in(self.started - 1)
    }

    fn kill(&mut self, domain: RemotePort) {
        let is_it = |wire: &Rc<Wire>| Rc::ptr_eq(wire, &domain.wire);
        let at = self.agents.iter().position(|(_, _, wire)| is_it(wire));
        let (guest, agent, wire) = self.agents.remove(at.expect("an agent"));
        machine(|machine| machine.kill(guest, agent));
        wire.cut();
    }

    fn map(region: &RemoteRegion) -> RemoteMemory {
        let attached = region.attach("read-write");
        attached.expect("the region can be mapped")
    }

    fn await_event(port: &mut RemotePort, end: LocalPort) -> Event {
        port.await_event(end)
    }

    fn pass_notifier(port: &mut RemotePort, end: LocalPort) {
        port.pass_notifier(end);
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for (guest, agent, wire) in self.agents.drain(..) {
            machine(|machine| machine.kill(guest, agent));
            wire.cut();
        }
    }
}

/// A check and its name.
type Check = (&'static str, fn());

macro_rules! list {
    ($($name:ident),* $(,)? ; $($own:ident),* $(,)?) => {
        &[
            $((stringify!($name), suite::$name::<Guests>),)*
            $((stringify!($own), checks::$own),)*
        ]
    };
}

/// What of the suite is left out, because Xen has it otherwise: a grant, or an event channel, can be made
/// for a domain that is not there; limits are not those of a stand-in; one region is granted to one
/// domain.
const CHECKS: &[Check] = list!(
    both_sides_of_a_grant_see_the_same_bytes,
    a_new_region_is_zero_and_as_long_as_asked,
    what_was_not_granted_cannot_be_mapped,
    what_was_granted_to_another_cannot_be_mapped,
    an_ended_grant_cannot_be_mapped_but_what_is_mapped_stays,
    only_the_owner_of_a_region_can_grant_it,
    what_a_dead_domain_granted_stays_where_it_is_mapped_and_is_gone_elsewhere,
    a_channel_wakes_both_ways,
    many_notifications_before_a_look_are_one_or_two,
    a_notification_before_the_bind_is_not_lost,
    a_notification_wakes_the_end_it_is_for_and_no_other,
    who_is_passed_a_notifier_raises_the_other_end,
    only_the_domain_it_was_made_for_binds_to_a_channel,
    a_channel_is_bound_once,
    closing_one_end_closes_the_other,
    the_death_of_a_domain_closes_the_ends_bound_to_it;
    a_region_is_granted_to_the_one_domain_it_was_made_for,
    a_region_made_for_nobody_is_granted_to_nobody,
    futexes_are_said_to_work_in_memory_that_is_not_shared_only,
    a_large_region_is_the_same_memory_from_its_first_page_to_its_last,
    a_region_can_be_mapped_several_times,
    what_is_granted_for_reading_cannot_be_mapped_for_writing,
    gntallocs_limit_is_named_and_what_was_released_counts_no_more,
    a_released_region_stays_where_it_is_mapped_and_cannot_be_mapped_again,
    a_region_that_a_killed_domain_mapped_is_free_again,
    event_channels_are_limited_and_come_back,
    the_grant_table_is_named_when_it_is_full_and_comes_back,
);

/// Runs all checks between so many guests.
pub fn run(guests: usize) -> ExitCode {
    let only = std::env::var("ONLY").unwrap_or_default();
    MACHINE.with(|machine| {
        let made = machine.set(Machine::new(guests));
        assert!(made.is_ok(), "one machine");
    });
    machine(|machine| println!("guests {:?}", machine.guests));
    let mut failed = 0;
    let checks: Vec<&Check> = CHECKS.iter().filter(|c| c.0.contains(&only)).collect();
    for (name, check) in &checks {
        let passed = catch_unwind(AssertUnwindSafe(check)).is_ok();
        println!("{} {name}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    machine(|machine| {
        for &guest in &machine.guests {
            machine.order(guest, 0, "stop");
        }
    });
    println!("{} passed, {failed} failed", checks.len() - failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
