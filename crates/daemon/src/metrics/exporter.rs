// SPDX-License-Identifier: MIT OR Apache-2.0
//! How numbers are read: `GET /metrics` by HTTP, over a Unix socket or a loopback address.
//!
//! It never waits for anybody: connections are in an epoll of its own, which is what the loop of the daemon
//! watches. One request a connection; who says nothing makes room for others.

use crate::server::{DaemonError, Epoll};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use vshmem_config::Listen;

/// The token of the listener; connections count on from there.
const LISTENER: u64 = 0;

/// Connections at a time.
const CONNECTIONS: usize = 16;

/// Bytes of a request.
const REQUEST: usize = 8 << 10;

/// Lines of a request's head.
const HEADERS: usize = 64;

/// What is answered with (OpenMetrics).
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A listening socket.
enum Socket {
    Unix(UnixListener, PathBuf),
    Loopback(TcpListener),
}

impl Socket {
    fn open(listen: &Listen) -> Result<Self, DaemonError> {
        let attempt = || -> std::io::Result<Self> {
            let socket = match listen {
                Listen::Unix(path) => {
                    let socket = Self::Unix(UnixListener::bind(path)?, path.clone());
                    // Who may enter the directory may read.
                    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                    socket
                }
                Listen::Loopback(address) => Self::Loopback(TcpListener::bind(address)?),
            };
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(socket)
        };
        if let Listen::Unix(path) = listen {
            make_room(path)?;
        }
        attempt().map_err(DaemonError::io(format!(
            "cannot listen on {listen} ([metrics] in vshmem.toml), and so numbers are not read of this \
             daemon"
        )))
    }

    fn accept(&self) -> std::io::Result<OwnedFd> {
        let socket: OwnedFd = match self {
            Self::Unix(listener, _) => listener.accept()?.0.into(),
            Self::Loopback(listener) => listener.accept()?.0.into(),
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(listener, _) => listener.as_fd(),
            Self::Loopback(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // Gone already is as good.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes away the socket that a daemon has left that is no more.
fn make_room(path: &Path) -> Result<(), DaemonError> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if !is_socket {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let _ = std::fs::remove_file(path);
            Ok(())
        }
        _ => Err(DaemonError::Refused(format!(
            "{} is another daemon's: put {{name}} into the path that [metrics] in vshmem.toml has, so \
             that each has its own; numbers are not read of this one",
            path.display()
        ))),
    }
}

/// One who reads.
struct Connection {
    socket: std::fs::File,
    request: Vec<u8>,
    /// What is still to be sent, once the request is there.
    answer: Option<Vec<u8>>,
}

/// What becomes of a connection.
enum Next {
    Wait,
    Send,
    Close,
}

/// Serves the numbers.
pub struct Exporter {
    epoll: Epoll,
    name: String,
    wanted: Option<Listen>,
    socket: Option<Socket>,
    connections: BTreeMap<u64, Connection>,
    last: u64,
}

impl Exporter {
    /// Of the daemon of this name; it listens nowhere yet.
    ///
    /// # Errors
    /// What epoll says.
    pub fn new(name: &str) -> Result<Self, Errno> {
        Ok(Self {
            epoll: Epoll::new()?,
            name: name.to_owned(),
            wanted: None,
            socket: None,
            connections: BTreeMap::new(),
            last: LISTENER,
        })
    }

    /// Listens there from now on, or nowhere. Where it cannot, the log says so: a daemon has more to do.
    pub fn listen(&mut self, wanted: Option<&Listen>) {
        if self.wanted.as_ref() == wanted && (wanted.is_none() || self.socket.is_some()) {
            return;
        }
        self.wanted = wanted.cloned();
        self.socket = None;
        self.connections.clear();
        let Some(wanted) = wanted else { return };
        let opened = Socket::open(&wanted.of(&self.name)).and_then(|socket| {
            let watched = self.epoll.add(&socket, LISTENER, EventFlags::IN);
            watched.map_err(DaemonError::io("epoll"))?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                let place = match &socket {
                    Socket::Unix(_, path) => format!("unix:{}", path.display()),
                    Socket::Loopback(listener) => match listener.local_addr() {
                        Ok(address) => format!("http://{address}/metrics"),
                        Err(error) => error.to_string(),
                    },
                };
                tracing::info!(place, "numbers are read here");
                self.socket = Some(socket);
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Does what there is to do; `text` is what is read.
    pub fn serve(&mut self, text: impl Fn() -> String) {
        let Ok(events) = self.epoll.wait(Some(std::time::Duration::ZERO)) else {
            return;
        };
        let tokens: Vec<u64> = events.map(|(token, _)| token).collect();
        for token in tokens {
            match token {
                LISTENER => self.accept(),
                number => self.go_on(number, &text),
            }
        }
    }

    fn accept(&mut self) {
        let Some(socket) = &self.socket else { return };
        match socket.accept() {
            Ok(socket) => {
                self.last += 1;
                if self.epoll.add(&socket, self.last, EventFlags::IN).is_err() {
                    return;
                }
                let connection = Connection {
                    socket: socket.into(),
                    request: Vec::new(),
                    answer: None,
                };
                self.connections.insert(self.last, connection);
                if self.connections.len() > CONNECTIONS {
                    self.connections.pop_first();
                }
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                // One that says nothing gives way to one that may.
                _ if self.connections.pop_first().is_some() => {}
                _ => {
                    tracing::error!(
                        %error,
                        "cannot take a connection to read numbers, which are not read any more until \
                         the configuration is read again (SIGHUP); raise the limit of open files \
                         (ulimit -n)"
                    );
                    self.socket = None;
                }
            },
        }
    }

    fn go_on(&mut self, number: u64, text: impl Fn() -> String) {
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        let next = match connection.answer {
            None => connection.receive(text),
            Some(_) => Next::Send,
        };
        let next = match next {
            Next::Send => connection.send(),
            next => next,
        };
        let closes = match next {
            Next::Wait => false,
            Next::Close => true,
            Next::Send => {
                // There is no more room for now.
                let _ = self.epoll.remove(&connection.socket);
                let flags = EventFlags::OUT;
                self.epoll.add(&connection.socket, number, flags).is_err()
            }
        };
        if closes {
            self.connections.remove(&number);
        }
    }
}

impl AsFd for Exporter {
    /// Readable when there is something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Connection {
    fn receive(&mut self, text: impl Fn() -> String) -> Next {
        let mut buffer = [0; 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Next::Close,
            Ok(bytes) => self.request.extend(buffer.iter().take(bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Wait,
            Err(_) => return Next::Close,
        }
        match answer(&self.request, text) {
            Some(answer) => {
                self.answer = Some(answer);
                Next::Send
            }
            None => Next::Wait,
        }
    }

    fn send(&mut self) -> Next {
        let Some(answer) = &mut self.answer else {
            return Next::Wait;
        };
        while !answer.is_empty() {
            match self.socket.write(answer) {
                Ok(0) => return Next::Close,
                Ok(bytes) => drop(answer.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Send,
                Err(_) => return Next::Close,
            }
        }
        Next::Close
    }
}

/// The answer to a request, as far as it has come; `None`: there is more of it to come.
fn answer(request: &[u8], text: impl Fn() -> String) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let (status, content_type, body) = match parsed.parse(request) {
        Ok(httparse::Status::Partial) if request.len() < REQUEST => return None,
        Ok(httparse::Status::Complete(_)) => {
            let path = parsed.path.and_then(|path| path.split('?').next());
            match (parsed.method, path) {
                (Some("GET"), Some("/metrics")) => ("200 OK", CONTENT_TYPE, text()),
                (Some("GET"), _) => not("404 Not Found", "the numbers are at /metrics"),
                _ => not("405 Method Not Allowed", "there is GET only"),
            }
        }
        Ok(httparse::Status::Partial) | Err(_) => not("400 Bad Request", "this is no request"),
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    );
    Some(answer.into_bytes())
}

fn not(status: &'static str, why: &str) -> (&'static str, &'static str, String) {
    (status, "text/plain; charset=utf-8", format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(request: &str) -> Option<String> {
        let answer = answer(request.as_bytes(), || "x 1\n".to_owned())?;
        Some(String::from_utf8(answer).unwrap())
    }

    /// An exporter in `dir`, and where it listens.
    fn exporter(dir: &Path, name: &str) -> (Exporter, PathBuf) {
        let listen = Listen::Unix(dir.join("{name}.sock"));
        let mut exporter = Exporter::new(name).unwrap();
        exporter.listen(Some(&listen));
        (exporter, dir.join(format!("{name}.sock")))
    }

    #[test]
    fn a_request_is_answered_when_it_is_whole_and_never_before() {
        let request = "GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n";
        for end in 1..request.len() {
            assert_eq!(said(&request[..end]), None, "{end}");
        }
        let said = said(request).unwrap();
        assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
        assert!(said.ends_with("\r\nContent-Length: 4\r\nConnection: close\r\n\r\nx 1\n"));
    }

    #[test]
    fn what_is_not_there_and_what_is_no_request_is_refused() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "404 "),
            ("POST /metrics HTTP/1.1\r\n\r\n".to_owned(), "405 "),
            ("\0\r\n\r\n".to_owned(), "400 "),
            ("GET /".to_owned() + &"x".repeat(REQUEST), "400 "),
        ] {
            let said = said(&request).unwrap();
            assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{said}");
        }
    }

    #[test]
    fn who_says_nothing_makes_room_and_all_others_are_answered() {
        let dir = tempfile::tempdir().unwrap();
        let (mut exporter, path) = exporter(dir.path(), "a");
        let connect = || UnixStream::connect(&path).unwrap();
        let mut silent = connect();
        let mut others: Vec<_> = (0..CONNECTIONS).map(|_| connect()).collect();
        for other in &mut others {
            other.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        }
        // One connection is taken in a round, and answered in the next.
        for _ in 0..2 * (CONNECTIONS + 1) {
            exporter.serve(|| "x 1\n".to_owned());
        }
        let mut text = String::new();
        for mut other in others {
            text.clear();
            other.read_to_string(&mut text).unwrap();
            assert!(text.ends_with("\r\n\r\nx 1\n"), "{text}");
        }
        for _ in 0..CONNECTIONS {
            // They stay open, and say nothing either.
            std::mem::forget(connect());
            exporter.serve(String::new);
        }
        text.clear();
        assert_eq!(silent.read_to_string(&mut text).unwrap(), 0);
    }

    #[test]
    fn a_long_answer_goes_on_when_there_is_room_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (mut exporter, path) = exporter(dir.path(), "a");
        let mut reader = UnixStream::connect(&path).unwrap();
        reader.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let body = "x".repeat(4 << 20);
        let text = || body.clone();
        exporter.serve(text);
        exporter.serve(text);
        reader.set_nonblocking(true).unwrap();
        let mut got = Vec::new();
        let mut part = vec![0; 1 << 16];
        loop {
            match reader.read(&mut part) {
                Ok(0) => break,
                Ok(bytes) => got.extend_from_slice(&part[..bytes]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    exporter.serve(text);
                }
            }
        }
        assert!(got.ends_with(body.as_bytes()));
    }

    #[test]
    fn the_socket_of_the_dead_is_taken_over_and_that_of_the_living_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        // Left: nobody removes its file.
        drop(UnixListener::bind(&path).unwrap());
        let (first, _) = exporter(dir.path(), "a");
        assert!(first.socket.is_some());
        let (second, _) = exporter(dir.path(), "a");
        assert!(second.socket.is_none());
        drop(second);
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn it_listens_elsewhere_or_nowhere_when_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut exporter, path) = exporter(dir.path(), "a");
        exporter.listen(Some(&Listen::Loopback("127.0.0.1:0".parse().unwrap())));
        assert!(!path.exists() && exporter.socket.is_some());
        exporter.listen(None);
        assert!(exporter.socket.is_none());
    }
}
