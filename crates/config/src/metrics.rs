// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a daemon lets its numbers be read (`[metrics]`).

use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What stands for the name of the daemon in a path: several of them may read the same file.
const NAME: &str = "{name}";

/// What a path begins with.
const UNIX: &str = "unix:";

/// An address to listen on: one that no other machine reaches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A Unix socket, by its path.
    Unix(PathBuf),
    /// A loopback address; with port 0 one that is free.
    Loopback(SocketAddr),
}

impl Listen {
    /// Where the daemon of this name listens.
    pub fn of(&self, name: &str) -> Self {
        match self {
            // It was made of a string.
            Self::Unix(path) => Self::Unix(path.to_string_lossy().replace(NAME, name).into()),
            Self::Loopback(address) => Self::Loopback(*address),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return match path.starts_with('/') {
                true => Ok(Self::Unix(path.into())),
                false => Err(format!(
                    "the path of a socket begins with `/`, not as in `{text}`"
                )),
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("`{text}` is no address to listen on: say \"unix:/PATH\" or \"127.0.0.1:PORT\"")
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "`{}` can be reached from other machines, and whoever reaches it reads the numbers: say \
                 \"unix:/PATH\", or a loopback address (127.0.0.1, [::1]) with a proxy before it that asks \
                 who is there",
                address.ip()
            ));
        }
        Ok(Self::Loopback(address))
    }
}

#[cfg(test)]
mod tests {
    use crate::parse;
    use std::path::Path;

    fn listen(text: &str) -> Result<Option<super::Listen>, String> {
        let text = format!("[metrics]\nlisten = \"{text}\"\n");
        let parsed = parse(Path::new("f"), &text).map_err(|error| error.to_string());
        parsed.map(|settings| settings.metrics)
    }

    #[test]
    fn a_socket_has_the_name_of_its_daemon_where_the_path_wants_it() {
        let path = |text, name| listen(text).unwrap().unwrap().of(name).to_string();
        assert_eq!(path("unix:/run/m.sock", "a"), "unix:/run/m.sock");
        assert_eq!(path("unix:/run/{name}.m", "a"), "unix:/run/a.m");
    }

    #[test]
    fn only_addresses_of_this_machine_are_taken() {
        for good in ["127.0.0.1:9464", "127.8.0.1:1", "[::1]:0"] {
            let listen = listen(good).unwrap().unwrap();
            assert_eq!(listen.of("a").to_string(), good);
        }
        for (bad, why) in [
            (
                "0.0.0.0:9464",
                "`0.0.0.0` can be reached from other machines",
            ),
            ("[::]:9464", "a loopback address"),
            ("192.168.0.1:9464", "\"unix:/PATH\""),
            ("unix:run/m.sock", "begins with `/`"),
            ("localhost:9464", "no address to listen on"),
            ("127.0.0.1", "\"127.0.0.1:PORT\""),
        ] {
            let error = listen(bad).unwrap_err();
            assert!(
                error.starts_with("f:2:10: ") && error.contains(why),
                "{error}"
            );
        }
    }
}
