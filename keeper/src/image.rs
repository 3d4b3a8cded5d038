//! The program that this process executes, and how to execute it again with other words in its environment.
//!
//! It must never pass on what systemd gave to this very process: the state holds those sockets.

use crate::error::Error;
use crate::plan::Program;
use crate::saved::{STATE_ENV, TRIAL_ENV};
use rustix::fs::{Mode, OFlags};
use std::ffi::{CString, OsStr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// A program with its arguments and its environment, ready for execve.
pub(crate) struct Image {
    /// The path; it is also `argv[0]`, by which a successor knows where it is.
    pub(crate) path: CString,
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
}

impl Image {
    /// An image that finds its state under that number.
    ///
    /// # Errors
    /// A zero byte somewhere.
    pub(crate) fn new(program: &Program, state: RawFd) -> Result<Image, Error> {
        let path = c_string(program.exe.as_os_str())?;
        let mut args = vec![path.clone()];
        for arg in &program.args {
            args.push(c_string(arg)?);
        }
        Ok(Image { path, args, env: environment(state)? })
    }
}

/// The file that this process executes, whatever has taken its path since.
///
/// # Errors
/// The kernel's; for instance without /proc.
pub(crate) fn own_file() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/exe", flags, Mode::empty()).map_err(Error::os("/proc/self/exe"))
}

/// Our own environment, plus the number of the state.
fn environment(state: RawFd) -> Result<Vec<CString>, Error> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        // systemd's sockets are in the state; taking them from the environment too would close them twice.
        let ours = name == STATE_ENV || name == TRIAL_ENV || name.as_bytes().starts_with(b"LISTEN_");
        if !ours {
            let mut pair = name;
            pair.push("=");
            pair.push(value);
            env.push(c_string(&pair)?);
        }
    }
    env.push(c_string(OsStr::new(&format!("{STATE_ENV}={state}")))?);
    Ok(env)
}

fn c_string(text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_| Error::State("a zero byte in the command line".to_owned()))
}
