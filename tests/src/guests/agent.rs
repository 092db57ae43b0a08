// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: starts programs in its guest for tests that run in another one.

use super::{Answer, Ask, Connection, PORT, Program, hear, say};
use crate::conform::process::{Here, Silence};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Children that were announced and not adopted yet, by number.
type Children = Arc<Mutex<(u64, HashMap<u64, Here>)>>;

/// Serves all who come, until it is killed.
///
/// # Errors
/// What listening says.
pub fn serve() -> io::Result<()> {
    // A shell has what it starts in the background ignore these, and so would all that is started here.
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: sets a default action; nothing of this process handles the signal.
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    let listener = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("agent: serving");
    let children = Children::default();
    for stream in listener.incoming() {
        let (connection, children) = (Connection::new(stream?)?, children.clone());
        std::thread::spawn(move || answer(connection, &children));
    }
    Ok(())
}

fn answer(mut connection: Connection, children: &Children) {
    let Some(first) = connection.hear() else {
        return;
    };
    match first {
        Ask::Run(program) => run(&program, connection),
        Ask::Start(program) => match Here::start(program.command()) {
            Ok(process) => {
                let _ = connection.say(&Answer::Pid(process.pid()));
                drive(process, connection, children);
            }
            Err(silence) => drop(connection.say(&Answer::Silent(silence))),
        },
        Ask::Adopt(number) => {
            let child = children.lock().expect("children").1.remove(&number);
            let child = child.expect("an announced child");
            let _ = connection.say(&Answer::Done);
            drive(child, connection, children);
        }
        Ask::Signal { pid, signal } => {
            send(pid, signal);
            let _ = connection.say(&Answer::Done);
        }
        Ask::Quit => std::process::exit(0),
        Ask::Sleeps(pid) => drop(connection.say(&Answer::Is(crate::sleeps(pid)))),
        other => panic!("not a first question: {other:?}"),
    }
}

/// A process that has ended already is as good.
fn send(pid: i32, signal: i32) {
    let _ = kill(
        Pid::from_raw(pid),
        Signal::try_from(signal).expect("a signal"),
    );
}

/// Runs a program to its end.
fn run(program: &Program, connection: Connection) {
    let mut command = program.command();
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|e| panic!("{program:?}: {e}"));
    let pid = child.id().cast_signed();
    let (asks, answers) = connection.split();
    // Two threads write, each a line at a time.
    let answers = Mutex::new(answers);
    let tell = |answer| say(&mut *answers.lock().expect("answers"), &answer);
    if tell(Answer::Pid(pid)).is_err() {
        let _ = child.kill();
    }
    let stdin = child.stdin.take();
    std::thread::spawn(move || listen(asks, stdin, pid));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let over = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        scope.spawn(|| copy(stdout, &over, |bytes| tell(Answer::Output(bytes))));
        scope.spawn(|| copy(stderr, &over, |bytes| tell(Answer::Errors(bytes))));
        let status = child.wait().expect("wait");
        over.store(true, Ordering::SeqCst);
        status
    });
    let _ = tell(Answer::Ended(status.into_raw()));
    let answers = answers.lock().expect("answers");
    let _ = answers.shutdown(std::net::Shutdown::Both);
}

/// Copies what a program writes to the other side, which may be gone. What the program leaves running
/// may keep the pipe open: once it is `over`, what is there is all.
fn copy(
    from: Option<impl Read + AsFd>,
    over: &AtomicBool,
    tell: impl Fn(Vec<u8>) -> io::Result<()>,
) {
    let mut from = from.expect("piped");
    let mut bytes = [0; 4096];
    loop {
        let ends = over.load(Ordering::SeqCst);
        let mut fds = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(20u8)) {
            Ok(0) if ends => return,
            Ok(1..) => match from.read(&mut bytes) {
                Ok(count @ 1..) => drop(tell(bytes[..count].to_vec())),
                _ => return,
            },
            _ => {}
        }
    }
}

/// Passes on what comes for a program; when the other side is gone the program goes, too.
fn listen(mut asks: BufReader<TcpStream>, mut stdin: Option<ChildStdin>, pid: i32) {
    loop {
        match hear(&mut asks) {
            // A program that does not read may miss it.
            Some(Ask::Input(bytes)) => drop(stdin.as_mut().map(|stdin| stdin.write_all(&bytes))),
            Some(Ask::EndOfInput) => stdin = None,
            Some(Ask::Signal { pid, signal }) => send(pid, signal),
            Some(other) => panic!("not for a program: {other:?}"),
            None => return send(pid, libc::SIGKILL),
        }
    }
}

/// Does with an interpreter what the harness says.
fn drive(mut process: Here, mut connection: Connection, children: &Children) {
    let text = |result: Result<String, Silence>| result.map_or_else(Answer::Silent, Answer::Text);
    while let Some(ask) = connection.hear() {
        let answer = match ask {
            Ask::ExpectUp => process
                .expect_up()
                .map_or_else(Answer::Silent, |()| Answer::Done),
            Ask::Send(command) => {
                process.send(&command);
                Answer::Done
            }
            Ask::Receive => text(process.receive().map(|(text, _)| text)),
            Ask::ReceiveUnlessAsleep => match process.answer_unless_asleep() {
                Ok(Some(text)) => Answer::Text(text),
                Ok(None) => Answer::Asleep,
                Err(silence) => Answer::Silent(silence),
            },
            Ask::MakeChild(command) => match process.ask_for_child(&command) {
                Ok(Ok(child)) => {
                    let pid = child.pid();
                    let mut children = children.lock().expect("children");
                    children.0 += 1;
                    let number = children.0;
                    children.1.insert(number, child);
                    Answer::Child { pid, number }
                }
                Ok(Err(answer)) => Answer::Text(answer),
                Err(silence) => Answer::Silent(silence),
            },
            Ask::Signal { signal, .. } => {
                let named = rustix::process::Signal::from_named_raw(signal);
                process.signal(named.expect("a signal"));
                Answer::Done
            }
            Ask::StopAndContinue => {
                process.stop_and_continue();
                Answer::Done
            }
            Ask::WaitEnd => process
                .wait_end()
                .map_or_else(Answer::Silent, |()| Answer::Done),
            other => panic!("not about an interpreter: {other:?}"),
        };
        if connection.say(&answer).is_err() {
            return;
        }
    }
}
