// SPDX-License-Identifier: MIT OR Apache-2.0
//! In each guest: starts and kills agents as the driver orders.

use super::words::{doze, home, read, store};
use std::collections::HashMap;
use std::process::{Child, Command, ExitCode};
use vshmem_registry::xenstore::XenStore;

/// Serves until the driver has done.
pub fn run() -> ExitCode {
    let store = store();
    let (_, home) = home(&store);
    let orders = format!("{home}/order");
    store.write(&orders, b"").expect("XenStore");
    store.watch(&orders, "order").expect("XenStore");
    let serves = format!("{home}/serves");
    store.write(&serves, b"1").expect("XenStore");
    let mut agents: HashMap<String, Child> = HashMap::new();
    loop {
        let waiting = store.directory(&orders).unwrap_or_default();
        let next = waiting.into_iter().find_map(|number| {
            let order = read(&store, &format!("{orders}/{number}"))?;
            let is_new = order != "start" || !agents.contains_key(&number);
            is_new.then_some((number, order))
        });
        let Some((number, order)) = next else {
            doze(&store);
            continue;
        };
        match order.as_str() {
            "start" => {
                let program = std::env::current_exe().expect("this program");
                let child = Command::new(program).args(["agent", &number]).spawn();
                agents.insert(number, child.expect("an agent"));
            }
            "kill" => {
                if let Some(mut child) = agents.remove(&number) {
                    child.kill().expect("kill");
                    child.wait().expect("wait");
                }
                for node in ["agent", "order"] {
                    let node = format!("{home}/{node}/{number}");
                    store.rm(&node).expect("XenStore");
                }
            }
            "stop" => return ExitCode::SUCCESS,
            other => panic!("no such order: {other}"),
        }
    }
}
