//! A container's first program: blocks until the wire is there, then becomes the real one.
//!
//! `wait PROGRAM [ARGUMENT...]` runs as any user, with any root file system, and must leave nothing behind:
//! no open descriptor, no changed signal mask, no environment. Its command line never changes, for containers
//! of an older Selvedge begin with the newest `wait`. It must never start a program that has no wire.

#![no_std]
#![no_main]

mod lookup;
mod route;
mod signals;
mod start;
mod sys;

use core::ffi::CStr;

use rustix::thread::set_name;

use crate::lookup::Verdict;
use crate::start::Arguments;

/// Exit codes of a shell, which container runtimes follow: not found, not executable.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// What `wait` does from its first instruction on. `start` calls it with the process's own arguments.
fn run(arguments: &Arguments) -> ! {
    let Some(program) = arguments.get(1) else { sys::exit(NOT_FOUND) };
    let old_mask = signals::block();
    let signals = signals::Descriptor::open();
    let below_init = is_below_init();
    let mut path = lookup::PathBuffer::new();
    // Below the engine's init nothing is told early: init itself says that a program is missing, when it runs.
    if !below_init {
        match lookup::find(program, arguments.path(), &mut path) {
            Verdict::Found => {}
            missing => hold(&missing, &signals),
        }
    }
    tell(c"sv:wait");
    route::wait_for_sign(&signals);
    drop(signals);
    signals::restore(old_mask);
    become_program(program, arguments, &mut path, below_init)
}

fn become_program(
    program: &CStr,
    arguments: &Arguments,
    path: &mut lookup::PathBuffer,
    below_init: bool,
) -> ! {
    if below_init {
        lookup::find(program, arguments.path(), path);
    }
    let error = sys::execve(path.as_c_str(), arguments.from(1), arguments.environment());
    if below_init {
        say_as_init(program, error);
    }
    // The words of runc's own init for an execve that fails: `exec PATH: TEXT`.
    sys::say(&[b"exec ", path.as_c_str().to_bytes(), b": ", error.text(), b"\n"]);
    sys::exit(1)
}

/// Tells why there is nothing to run, and stays until somebody ends us: to exit by itself would set a restart
/// policy going, which the engine never does for a program that is not there.
fn hold(missing: &Verdict, signals: &signals::Descriptor) -> ! {
    let (state, code) = match missing {
        Verdict::Found => (c"sv:wait", 0),
        Verdict::NotInPath => (c"sv:path", NOT_FOUND),
        Verdict::NoEntry => (c"sv:noent", NOT_FOUND),
        Verdict::NotExecutable => (c"sv:perm", NOT_EXECUTABLE),
        Verdict::Directory => (c"sv:isdir", NOT_EXECUTABLE),
    };
    tell(state);
    signals.wait();
    sys::exit(code)
}

/// Our state, where the worker reads it: /proc/PID/comm.
fn tell(state: &CStr) {
    // A kernel that refuses that does not exist; without it the worker would wait for its own time limit.
    let _ = set_name(state);
}

/// The engine's init (tini), started by `--init`, is then our parent.
fn is_below_init() -> bool {
    let Some(parent) = rustix::process::getppid() else { return false };
    let mut comm = [0; 16];
    let read = sys::read_comm(parent.as_raw_nonzero().get(), &mut comm);
    comm[..read].starts_with(b"docker-init") || comm[..read].starts_with(b"tini\n")
}

/// What tini says and does when its program cannot be run (tini.c, `spawn_process`).
fn say_as_init(program: &CStr, error: sys::Errno) -> ! {
    let mut digits = [0; 10];
    let pid = sys::decimal(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs(), &mut digits);
    sys::say(&[
        b"[FATAL tini (",
        pid,
        b")] exec ",
        program.to_bytes(),
        b" failed: ",
        error.long_text(),
        b"\n",
    ]);
    sys::exit(match error {
        sys::Errno::NOENT => NOT_FOUND,
        sys::Errno::ACCES => NOT_EXECUTABLE,
        _ => 1,
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::exit(NOT_EXECUTABLE)
}
