// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a figure depends on besides the program: the machine and the versions.

use serde::Serialize;
use std::process::Command;

/// The machine and its software.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Whether the kernel runs under a hypervisor.
    pub virtual_machine: bool,
    /// Release and version of the kernel.
    pub kernel: String,
    /// Whether `shmem` memory (segments and memfds) may get huge pages.
    pub huge_pages: String,
    /// Load average of the last minute when the measurement began.
    pub load: String,
    /// Whether all this ran before everything of ordinary priority (`chrt -f 10 vshmem-bench`),
    /// as on a busy machine it should.
    pub real_time: bool,
    /// The C compiler.
    pub gcc: String,
    /// MPI, where it is installed.
    pub mpi: String,
    /// The C library.
    pub libc: String,
    /// This project.
    pub vshmem: &'static str,
}

impl Machine {
    /// Looks at the machine this runs on. What cannot be found out is an empty text.
    pub fn look() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or("", |(_, value)| value.trim())
        };
        Self {
            cpu: field("model name").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            virtual_machine: field("flags").split(' ').any(|flag| flag == "hypervisor"),
            kernel: format!(
                "{} {}",
                read("/proc/sys/kernel/osrelease"),
                read("/proc/sys/kernel/version")
            ),
            huge_pages: read("/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            real_time: is_real_time(&read("/proc/self/stat")),
            gcc: first_line("gcc", "--version"),
            mpi: first_line("mpichversion", "--version"),
            libc: first_line("getconf", "GNU_LIBC_VERSION"),
            vshmem: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Whether a process has a real-time policy, by its line in `/proc/PID/stat` (proc(5)): field 40
/// is its real-time priority, which others have not.
fn is_real_time(stat: &str) -> bool {
    // The name, field 2, may have blanks; it ends with the last parenthesis.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let priority = after_name.split_whitespace().nth(40 - 3);
    priority.is_some_and(|priority| priority != "0")
}

fn read(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn first_line(program: &str, arg: &str) -> String {
    let output = Command::new(program).arg(arg).output();
    let text = output.map_or_else(|_| Vec::new(), |output| output.stdout);
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_priority_is_the_fortieth_field_whatever_the_name_is() {
        let stat = |priority: &str| {
            let fields = "0 ".repeat(40 - 4);
            format!("12 (a) b) S {fields}{priority} 0 0")
        };
        assert!(is_real_time(&stat("10")));
        assert!(!is_real_time(&stat("0")));
        assert!(!is_real_time(""));
    }
}
