//! Runs system programs: iptables, nft, firewall-cmd. Must never go through a shell.

use std::io;
use std::process::{Child, Command, Output, Stdio};

/// Services are often started without the sbin directories in PATH.
const DIRECTORIES: [&str; 3] = ["", "/usr/sbin/", "/sbin/"];

/// Starts a program; its output can be read.
pub(crate) fn start(name: &str, arguments: &[&str], stdin: fn() -> Stdio) -> io::Result<Child> {
    let mut last = io::ErrorKind::NotFound.into();
    for directory in DIRECTORIES {
        let mut command = Command::new(format!("{directory}{name}"));
        command.args(arguments).stdin(stdin()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => last = error,
            outcome => return outcome,
        }
    }
    Err(last)
}

/// Runs a program to its end.
pub(crate) fn run(name: &str, arguments: &[&str]) -> io::Result<Output> {
    start(name, arguments, Stdio::null)?.wait_with_output()
}
