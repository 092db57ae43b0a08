// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a domain gets to be one: it finds the back-end and is enrolled.

use super::clients::Run;
use super::link::{Attend, Link, Mailboxes, Socket};
use crate::config::Config;
use crate::server::{DaemonError, Signals, Told};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use vshmem_abi::link::{LinkMsg, LinkOp, SEPARATE_KERNELS};
use vshmem_abi::{Domid, paths};
use vshmem_gnt::AnyPort;
use vshmem_gnt::host::HostPort;
use vshmem_gnt::xen::XenPort;
use vshmem_registry::xenstore::library::Library;
use vshmem_registry::xenstore::{QUOTA_ADVICE, XenStore, is_quota};

/// A domain that is enrolled.
pub struct Enrolled {
    /// Its name, as others know it.
    pub name: String,
    /// Its port.
    pub port: AnyPort,
    /// Its connection to the back-end.
    pub link: Link,
    /// Which run of its `vshmemd` this is.
    pub run: Run,
    /// Pages that it may grant at a time; 0: not known.
    pub grants_limit: u64,
}

/// A domain that is not enrolled yet, and knows nothing.
struct Nobody;

impl Attend for Nobody {
    fn query(&mut self, query: &LinkMsg) -> LinkMsg {
        query.refuse(libc::ENOSYS)
    }

    fn late(&mut self, _: &LinkMsg) {}

    fn questions(&self) -> Vec<LinkMsg> {
        Vec::new()
    }

    fn told(&mut self, _: &LinkMsg, _: Result<&LinkMsg, Errno>) {}

    fn ready(&mut self, _: BTreeMap<Domid, String>) {}
}

fn refused(name: &str, why: &str) -> DaemonError {
    DaemonError::Refused(format!("the back-end does not take domain '{name}': {why}"))
}

/// Enrols the domain `name` at the back-end of the world in `dir`.
///
/// # Errors
/// There is none, or it does not take the domain.
pub fn on_host(dir: &Path, name: &str, generation: u64) -> Result<Enrolled, DaemonError> {
    let socket = Socket::connect(dir).map_err(DaemonError::io(format!(
        "cannot connect to the back-end at {} (start one with: vshmemd --backend --dir {})",
        paths::backend_socket(dir).display(),
        dir.display()
    )))?;
    let mut link = Link::new(socket);
    let mut request = LinkMsg {
        generation,
        ..LinkMsg::new(LinkOp::Enrol)
    };
    for (place, byte) in request.name.iter_mut().zip(name.bytes()) {
        *place = byte;
    }
    let (answer, hub) = match link.enrol(&request, &mut Nobody) {
        Ok((answer, [Some(hub), ..])) => (answer, hub),
        Ok(_) => {
            let why = "no connection to the hub came with its answer";
            return Err(refused(name, why));
        }
        Err(errno) => {
            let why = match errno {
                Errno::EXIST => "a domain of that name is enrolled already",
                Errno::NODEV => "it does not answer, or is of another version",
                errno => return Err(refused(name, &errno.to_string())),
            };
            return Err(refused(name, why));
        }
    };
    let port = HostPort::new(answer.domid, hub);
    let port = port.map_err(DaemonError::io("connection to the hub"))?;
    let port = match answer.flags & SEPARATE_KERNELS {
        0 => port,
        _ => port.with_separate_kernels(),
    };
    Ok(Enrolled {
        name: name.to_owned(),
        port: port.into(),
        link,
        run: run(generation, &answer)?,
        grants_limit: answer.totals.used,
    })
}

fn run(generation: u64, answer: &LinkMsg) -> Result<Run, DaemonError> {
    match u8::try_from(answer.epoch) {
        Ok(epoch) => Ok(Run { generation, epoch }),
        Err(_) => Err(DaemonError::Refused(
            "the back-end has answered with an epoch that is none".to_owned(),
        )),
    }
}

/// Enrols this guest at the back-end in dom0, for which it waits; `None`: it was told to stop.
///
/// # Errors
/// This is no Xen guest, or something is missing in it; the back-end does not take it.
pub fn on_xen(
    generation: u64,
    signals: &Signals,
    config: &mut Config,
) -> Result<Option<Enrolled>, DaemonError> {
    let store = Library::open().map_err(|error| DaemonError::Refused(error.to_string()))?;
    let mailboxes = mailboxes(Rc::new(store), generation)?;
    let (domid, name) = (mailboxes.domid(), mailboxes.name());
    let port = XenPort::new(domid).map_err(|error| DaemonError::Refused(error.to_string()))?;
    let mut link = Link::new(mailboxes);
    let enrolled = enrol_in_time(&mut link, &name, generation, signals, config)?;
    let Some(answer) = enrolled else {
        return Ok(None);
    };
    if answer.domid != domid {
        let why = "it has another number for it than XenStore";
        return Err(refused(&name, why));
    }
    Ok(Some(Enrolled {
        name,
        port: port.into(),
        link,
        run: run(generation, &answer)?,
        grants_limit: 0,
    }))
}

fn mailboxes(store: Rc<dyn XenStore>, generation: u64) -> Result<Mailboxes, DaemonError> {
    Mailboxes::new(store, generation).map_err(|errno| match errno {
        Errno::INVAL => DaemonError::Refused(
            "this is dom0, where the back-end runs (vshmemd --backend --port xen); vshmemd --port xen \
             is for guests"
                .to_owned(),
        ),
        errno if is_quota(errno) => DaemonError::Refused(format!(
            "this domain may have no more watches in XenStore ({errno}); {QUOTA_ADVICE}"
        )),
        errno => DaemonError::io("XenStore")(errno),
    })
}

/// Enrols, as soon as there is a back-end that answers. `None`: it was told to stop before.
fn enrol_in_time(
    link: &mut Link,
    name: &str,
    generation: u64,
    signals: &Signals,
    config: &mut Config,
) -> Result<Option<LinkMsg>, DaemonError> {
    let request = LinkMsg {
        generation,
        ..LinkMsg::new(LinkOp::Enrol)
    };
    let mut said = false;
    loop {
        match link.enrol(&request, &mut Nobody) {
            Ok((answer, _)) => return Ok(Some(answer)),
            Err(Errno::NODEV) => {}
            Err(Errno::NOSPC) => {
                let why = format!("XenStore's quota of this domain is used up; {QUOTA_ADVICE}");
                return Err(DaemonError::Refused(why));
            }
            Err(Errno::PROTO) => return Err(refused(name, "it is of another version")),
            Err(errno) => return Err(refused(name, &errno.to_string())),
        }
        let lost = || {
            refused(
                name,
                "the connection to it is lost; the log lines before this one say why",
            )
        };
        let fd = link.fd().ok_or_else(lost)?;
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(
                "there is no back-end that answers; waiting for one (in dom0: vshmemd --backend --port \
                 xen)"
            );
        }
        let mut fds = [
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => link.attend(&mut Nobody),
            Err(errno) => return Err(DaemonError::io("poll")(errno)),
        }
        match signals.take() {
            Some(Told::Stop) => return Ok(None),
            Some(Told::Reload) => {
                config.reload();
            }
            None => {}
        }
    }
}
