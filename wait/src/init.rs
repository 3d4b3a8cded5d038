//! When the container runs under docker-init (`--init`, which is tini): the program is started as tini would have.
//!
//! tini calls glibc's execvp and prints its own words when that fails (tini 0.19, src/tini.c `spawn_process`).
//! Must never look the program up early: under an init the engine's start succeeds also for a missing program.

use core::ffi::CStr;

use crate::arguments::Arguments;
use crate::errno;
use crate::lookup::PathBuffer;
use crate::stop::StopSignals;
use crate::syscall;

/// What glibc searches when there is no PATH (confstr _CS_PATH).
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
const SHELL: &CStr = c"/bin/sh";
/// For the vector of a script run by the shell, on the stack. Above that, the error of the script itself is told.
const SCRIPT_ARGUMENTS: usize = 1024;

/// Whether our parent is the init that dockerd mounts into a container: its name is always `docker-init`.
pub(crate) fn is_parent() -> bool {
    let parent = rustix::process::getppid().filter(|parent| parent.as_raw_nonzero().get() > 0);
    let Some(parent) = parent else { return false };
    let mut number = [0; 16];
    let mut path = PathBuffer::new();
    let number = errno::numbered(b"/proc/", parent.as_raw_nonzero().get(), &mut number);
    let Some(path) = path.join_plain(number, b"comm") else { return false };
    let mut name = [0; 32];
    let read = read_file(path, &mut name);
    matches!(name.get(..read), Some(b"docker-init\n" | b"tini\n" | b"tini-static\n"))
}

/// Becomes the program, or ends as tini's child does.
pub(crate) fn execute(program: &CStr, arguments: &Arguments, signals: StopSignals) -> ! {
    signals.restore();
    let error = search(program, arguments);
    let mut number = [0; 16];
    let pid = errno::numbered(b"", rustix::process::getpid().as_raw_nonzero().get(), &mut number);
    let (capital, rest) = errno::glibc_text(error);
    let name = program.to_bytes();
    errno::print(&[b"[FATAL tini (", pid, b")] exec ", name, b" failed: ", &capital, rest, b"\n"]);
    syscall::exit(match error {
        errno::ENOENT => 127,
        errno::EACCES => 126,
        _ => 1,
    })
}

/// execvp(3): the error of the whole search. A refusal in one directory is told only if no other has the program.
fn search(program: &CStr, arguments: &Arguments) -> i32 {
    let name = program.to_bytes();
    if name.is_empty() {
        return errno::ENOENT;
    }
    if name.contains(&b'/') {
        return execute_file(program, arguments);
    }
    let (mut refused, mut last) = (false, errno::ENOENT);
    let mut path = PathBuffer::new();
    for directory in arguments.variable(b"PATH").unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':') {
        let Some(file) = path.join_plain(directory, name) else { continue };
        last = execute_file(file, arguments);
        match last {
            errno::EACCES => refused = true,
            errno::ENOENT | errno::ENOTDIR | ESTALE | ENODEV | ETIMEDOUT => {}
            _ => return last,
        }
    }
    if refused { errno::EACCES } else { last }
}

const ENODEV: i32 = 19;
const ETIMEDOUT: i32 = 110;
const ESTALE: i32 = 116;

/// execve(2), and for a file without a known format the shell, as execvp(3) does.
fn execute_file(file: &CStr, arguments: &Arguments) -> i32 {
    let error = syscall::execve(file, arguments.program_arguments(), arguments.environment());
    let count = arguments.program_argument_count();
    if error != errno::ENOEXEC || count + 2 > SCRIPT_ARGUMENTS {
        return error;
    }
    let mut vector = [core::ptr::null(); SCRIPT_ARGUMENTS];
    vector[0] = SHELL.as_ptr().cast::<u8>();
    vector[1] = file.as_ptr().cast();
    // SAFETY: the program's vector has `count` strings and then its null.
    let rest = unsafe { core::slice::from_raw_parts(arguments.program_arguments(), count) };
    for (to, from) in vector.iter_mut().skip(2).zip(rest.iter().skip(1)) {
        *to = *from;
    }
    syscall::execve(SHELL, vector.as_ptr(), arguments.environment())
}

fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    use rustix::fs::{Mode, OFlags, open};
    let opened = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    let Some(file) = opened.and_then(syscall::opened) else { return 0 };
    rustix::io::read(&file, buffer).unwrap_or(0)
}
