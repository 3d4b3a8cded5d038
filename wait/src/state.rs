//! What the worker reads in `/proc/PID/comm`: the state of the wait, told by the process's own name.
//!
//! A name needs no file, no descriptor and no right, and the execve(2) at the end takes it away by itself.
//! These names are a contract with the worker: must never change without it.

use crate::errno;

/// Linux keeps 15 bytes of a thread's name and a NUL (TASK_COMM_LEN).
const NAME_BYTES: usize = 16;

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

    fn name(self, buffer: &mut [u8; NAME_BYTES]) -> &[u8] {
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

/// Takes the state's name. A seccomp profile that refuses prctl(2) leaves the worker without it: nothing to be done.
pub(crate) fn tell(state: State) {
    let mut buffer = [0; NAME_BYTES];
    let name = state.name(&mut buffer);
    let mut terminated = [0; NAME_BYTES];
    for (to, from) in terminated.iter_mut().take(NAME_BYTES - 1).zip(name) {
        *to = *from;
    }
    if let Ok(name) = core::ffi::CStr::from_bytes_until_nul(&terminated) {
        let _refused = rustix::thread::set_name(name);
    }
}
