// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration that a daemon goes by, and how it comes by another one (`SIGHUP`).

use crate::server;
use std::path::{Path, PathBuf};
use vshmem_config::{ConfigError, Settings};

/// What is in force, and where it is read.
#[derive(Debug, Default)]
pub struct Config {
    named: Option<PathBuf>,
    dir: PathBuf,
    settings: Settings,
}

impl Config {
    /// Reads the file `named`, or else that of the directory.
    ///
    /// # Errors
    /// There is one that is of no use.
    pub fn read(named: Option<PathBuf>, dir: &Path) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: vshmem_config::read(named.as_deref(), dir)?,
            dir: dir.to_owned(),
            named,
        })
    }

    /// What is in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Says what is in force.
    pub fn log(&self) {
        match &self.settings.file {
            Some(file) => {
                let rules = self.settings.policy.rules().len();
                tracing::info!(file = %file.display(), rules, "configured");
            }
            None => tracing::info!("configured by nothing: there is no vshmem.toml"),
        }
    }

    /// Reads again. With a file that is of no use everything stays as it is, and `None` is returned.
    pub fn reload(&mut self) -> Option<&Settings> {
        server::reloading();
        let read = vshmem_config::read(self.named.as_deref(), &self.dir);
        server::ready(None);
        match read {
            Ok(settings) => {
                self.settings = settings;
                self.log();
                Some(&self.settings)
            }
            Err(error) => {
                tracing::error!(
                    "the configuration is not reloaded, and the one before stays in force: {error}"
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_wrong_leaves_the_one_before_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vshmem.toml");
        let mut config = Config::read(Some(file.clone()), dir.path());
        assert!(config.is_err());
        std::fs::write(&file, "[limits]\nmsgmax = 1\n").unwrap();
        config = Config::read(Some(file.clone()), dir.path());
        let mut config = config.unwrap();
        std::fs::write(&file, "[limits]\nmsgmax = 0\n").unwrap();
        assert_eq!(config.reload(), None);
        assert_eq!(config.settings().raised.max, 1);
        std::fs::write(&file, "[limits]\nmsgmax = 2\n").unwrap();
        assert_eq!(config.reload().map(|settings| settings.raised.max), Some(2));
        std::fs::remove_file(&file).unwrap();
        assert_eq!(config.reload(), None);
        assert_eq!(config.settings().raised.max, 2);
    }
}
