// SPDX-License-Identifier: MIT OR Apache-2.0
//! `guest_agent exec HOST [NAME=VALUE...] -- PROGRAM ARGS`: a process here that stands for one in
//! another guest: input, output, signals and the end are that one's.

use super::{Answer, Ask, Connection, Far, Program, hear, note, say};
use nix::sys::signal::{SigSet, Signal};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc;

/// Signals that are passed on, instead of ending or stopping this process.
const PASSED_ON: [Signal; 6] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Runs the program and ends as it does.
pub fn exec(host: &str, program: Program) -> ! {
    let mut signals = SigSet::empty();
    PASSED_ON.iter().for_each(|&signal| signals.add(signal));
    signals.thread_block().expect("signals are blocked");
    let mut connection = Connection::to(host);
    let Answer::Pid(pid) = connection.ask(&Ask::Run(program)) else {
        panic!("the agent does not say which process it is");
    };
    let host = host.to_owned();
    let far = serde_json::to_vec(&Far { host, pid }).expect("JSON");
    let note = note(std::process::id());
    std::fs::write(&note, far).expect("note of the other process");

    let (mut answers, mut asks) = connection.split();
    let (say_all, all) = mpsc::channel();
    let input = say_all.clone();
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let signal = signal as i32;
            let _ = say_all.send(Ask::Signal { pid, signal });
        }
    });
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut bytes) {
            let _ = input.send(Ask::Input(bytes[..count].to_vec()));
        }
        let _ = input.send(Ask::EndOfInput);
    });
    std::thread::spawn(move || {
        for ask in all {
            if say(&mut asks, &ask).is_err() {
                break;
            }
        }
    });
    let mut status = None;
    while let Some(answer) = hear(&mut answers) {
        let written = match answer {
            Answer::Output(bytes) => std::io::stdout().write_all(&bytes),
            Answer::Errors(bytes) => std::io::stderr().write_all(&bytes),
            Answer::Ended(raw) => {
                status = Some(ExitStatus::from_raw(raw));
                break;
            }
            other => panic!("not about a program: {other:?}"),
        };
        // Nobody reads it any more.
        drop(written);
        let _ = std::io::stdout().flush();
    }
    let _ = std::fs::remove_file(note);
    end_as(status.expect("the agent says how the program ended"))
}

/// Ends with the status of the other process.
fn end_as(status: ExitStatus) -> ! {
    if let Some(signal) = status.signal() {
        let signal = Signal::try_from(signal).expect("a signal");
        // What was blocked to be passed on, and the runtime's own choices, do not keep it off.
        // SAFETY: sets a default action, and ends this process.
        unsafe {
            libc::signal(signal as i32, libc::SIG_DFL);
        }
        let _ = SigSet::all().thread_unblock();
        let _ = nix::sys::signal::raise(signal);
    }
    std::process::exit(status.code().unwrap_or(255))
}
