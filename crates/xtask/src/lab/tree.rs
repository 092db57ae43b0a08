// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tree of files for a machine's initial file system, and its writing as an archive that the
//! kernel unpacks (cpio, "newc").

use crate::Result;
use cpio::newc::{Builder, ModeFileType};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The largest file that fits into such an archive, in bytes.
const LARGEST: u64 = u32::MAX as u64;

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    Link(String),
    Text {
        text: String,
        mode: u32,
    },
    /// A file of this machine, copied when the archive is written.
    File {
        from: PathBuf,
        mode: u32,
    },
}

/// A tree, by paths without a leading slash. A directory sorts before what is in it.
#[derive(Debug, Default)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// A directory, with those above it.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return;
        }
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            self.entries
                .entry(path[..end].to_owned())
                .or_insert(Entry::Directory);
        }
    }

    /// A file with this text.
    pub fn text(&mut self, path: &str, text: impl Into<String>) {
        let text = text.into();
        self.put(path, Entry::Text { text, mode: 0o644 });
    }

    /// A program with this text.
    pub fn script(&mut self, path: &str, text: impl Into<String>) {
        let text = text.into();
        self.put(path, Entry::Text { text, mode: 0o755 });
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: impl Into<String>) {
        self.put(path, Entry::Link(target.into()));
    }

    /// A copy of a file, with its permissions.
    pub fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let found = std::fs::metadata(from).map_err(|e| format!("{}: {e}", from.display()))?;
        if found.len() > LARGEST {
            return Err(format!("{} is too large for a guest", from.display()));
        }
        let (from, mode) = (from.to_owned(), found.permissions().mode() & 0o777);
        self.put(path, Entry::File { from, mode });
        Ok(())
    }

    /// Copies of all that is in a directory of this machine, links as they are.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        self.directory(path);
        let fail = |e: std::io::Error| format!("{}: {e}", from.display());
        for entry in std::fs::read_dir(from).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .ok_or_else(|| format!("{}: {name:?} is not UTF-8", from.display()))?;
            let (inner, kind) = (format!("{path}/{name}"), entry.file_type().map_err(fail)?);
            if kind.is_dir() {
                self.copy(&inner, &entry.path())?;
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).map_err(fail)?;
                self.link(&inner, target.to_string_lossy());
            } else if kind.is_file() {
                self.file(&inner, &entry.path())?;
            }
        }
        Ok(())
    }

    /// The files of this machine that are copied, with the paths where they go.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.entries.iter().filter_map(|(path, entry)| match entry {
            Entry::File { from, .. } => Some((path.as_str(), from.as_path())),
            _ => None,
        })
    }

    /// Whether something is at a path.
    pub fn has(&self, path: &str) -> bool {
        self.entries.contains_key(path.trim_matches('/'))
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let fail = |e: std::io::Error| format!("cannot write {}: {e}", archive.display());
        let mut out = BufWriter::new(File::create(archive).map_err(fail)?);
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let (kind, mode) = match entry {
                Entry::Directory => (ModeFileType::Directory, 0o755),
                Entry::Link(_) => (ModeFileType::Symlink, 0o777),
                Entry::Text { mode, .. } | Entry::File { mode, .. } => {
                    (ModeFileType::Regular, *mode)
                }
            };
            let content = match entry {
                Entry::Directory => Vec::new(),
                Entry::Link(text) | Entry::Text { text, .. } => text.clone().into_bytes(),
                Entry::File { from, .. } => {
                    std::fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?
                }
            };
            let size = u32::try_from(content.len())
                .map_err(|_| format!("{path} is too large for a guest"))?;
            let header = Builder::new(path)
                .ino(number)
                .mode(mode)
                .set_mode_file_type(kind);
            let mut file = header.write(&mut out, size);
            file.write_all(&content).map_err(fail)?;
            file.finish().map_err(fail)?;
        }
        cpio::newc::trailer(&mut out).map_err(fail)?;
        out.flush().map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_brings_the_directories_above_it_and_they_come_first() {
        let mut tree = Tree::default();
        tree.text("/etc/lab/name", "dom1\n");
        let paths: Vec<_> = tree.entries.keys().collect();
        assert_eq!(paths, ["etc", "etc/lab", "etc/lab/name"]);
        assert!(tree.has("/etc/lab/"));
    }

    #[test]
    fn the_archive_holds_files_with_modes_and_links() {
        let mut tree = Tree::default();
        tree.script("init", "#!/bin/sh\n");
        tree.link("bin/sh", "busybox");
        let archive = std::env::temp_dir().join(format!("lab-tree-{}", std::process::id()));
        tree.write(&archive).unwrap();
        let bytes = std::fs::read(&archive).unwrap();
        std::fs::remove_file(&archive).unwrap();
        let mut seen = Vec::new();
        let mut rest = bytes.as_slice();
        loop {
            let mut reader = cpio::newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = String::new();
            std::io::Read::read_to_string(&mut reader, &mut content).unwrap();
            let entry = reader.entry();
            seen.push((entry.name().to_owned(), entry.mode(), content));
            rest = reader.finish().unwrap();
        }
        let want = [
            ("bin", 0o40755, ""),
            ("bin/sh", 0o120777, "busybox"),
            ("init", 0o100755, "#!/bin/sh\n"),
        ];
        let want = want.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned()));
        assert_eq!(seen, want);
    }
}
