//! What the worker reads in `/proc/PID/comm`: the state of the wait, told by the process's own name.
//!
//! A name needs no file, no descriptor and no right, and the execve(2) at the end takes it away by itself. The mailbox has
//! it as well, for profiles that refuse prctl(2).
//! These names are a contract with the worker: must never change without it.

use crate::mailbox::NAME_BYTES;
use crate::{errno, mailbox};

/// A state that the worker can see.
#[derive(Clone, Copy)]
pub(crate) enum State {
    /// `sv:wait`: the program is there, the wire is not yet.
    Waiting,
    /// `sv:path`: a bare name that is in no directory of $PATH.
    NotInPath,
    /// `sv:dot`: found, but relative to the working directory, which Go's exec.LookPath refuses.
    InWorkingDirectory,
    /// `sv:noent`: the path does not exist.
    Missing,
    /// `sv:perm`: it exists, but may not be executed.
    NotExecutable,
    /// `sv:isdir`: it is a directory.
    Directory,
    /// `sv:eN`: stat(2) failed with errno N, for example `sv:e20` for a path through a file.
    Unreachable(i32),
}

impl State {
    /// How the process ends in this state: what dockerd writes into State.ExitCode for a start that runc refused.
    pub(crate) fn exit_code(self) -> i32 {
        match self {
            Self::NotInPath | Self::Missing | Self::Unreachable(errno::ENOTDIR) => 127,
            Self::NotExecutable | Self::Directory | Self::Unreachable(errno::EACCES) => 126,
            Self::Waiting | Self::InWorkingDirectory | Self::Unreachable(_) => 128,
        }
    }

    /// Its name, ended by NUL.
    pub(crate) fn name(self) -> [u8; NAME_BYTES] {
        let (mut buffer, mut name) = ([0; NAME_BYTES], [0; NAME_BYTES]);
        for (to, from) in name.iter_mut().take(NAME_BYTES - 1).zip(self.text(&mut buffer)) {
            *to = *from;
        }
        name
    }

    fn text(self, buffer: &mut [u8; NAME_BYTES]) -> &[u8] {
        match self {
            Self::Waiting => b"sv:wait",
            Self::NotInPath => b"sv:path",
            Self::InWorkingDirectory => b"sv:dot",
            Self::Missing => b"sv:noent",
            Self::NotExecutable => b"sv:perm",
            Self::Directory => b"sv:isdir",
            Self::Unreachable(error) => errno::numbered(b"sv:e", error, buffer),
        }
    }
}

/// Lets the worker see the state, by the mailbox and by our name. The name is all that earlier workers look at.
pub(crate) fn tell(state: State) {
    let name = state.name();
    mailbox::tell(&name);
    if let Ok(name) = core::ffi::CStr::from_bytes_until_nul(&name) {
        let _refused = rustix::thread::set_name(name);
    }
}
