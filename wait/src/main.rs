//! A container's first program: waits until the wire is there, then becomes the program that was asked for.
//!
//! `wait PROG ARGS...` looks PROG up as runc does before it starts a container, says in its own name
//! (`/proc/PID/comm`) what it found, waits for the sign of the network, and calls execve(2).
//! It runs as any user, under any seccomp profile, with nothing but the kernel: no libc, no heap, no files of ours. A call
//! that the profile refuses, with whatever error, has another one in its place or is done without (`silent`).
//! It must never change what the program gets: environment, arguments, descriptors, signal mask.
#![no_std]
#![no_main]

// Without std nothing can unwind: this lets `cargo check` and clippy run in any profile. Linked is only `tiny`.
#[cfg(panic = "unwind")]
extern crate std;

mod arguments;
mod errno;
mod init;
mod lookup;
mod mailbox;
mod sign;
mod silent;
mod start;
mod state;
mod stop;
mod syscall;

use core::ffi::CStr;

use crate::arguments::Arguments;
use crate::lookup::Finding;
use crate::state::State;
use crate::stop::StopSignals;

/// The whole life of the process; `start` calls it with what the kernel put on the stack.
fn run(arguments: &Arguments) -> ! {
    let Some(program) = arguments.program() else {
        errno::print(&[b"usage: wait PROGRAM [ARGUMENT...]\n"]);
        syscall::exit(2)
    };
    if silent::is_wanted(arguments) {
        silent::run(program, arguments)
    }
    let signals = StopSignals::block();
    if init::is_parent() {
        // An init already runs, so the engine has said "started": a missing program is told by the init, later.
        await_sign(&signals);
        init::execute(program, arguments, signals)
    }
    let mut path = lookup::PathBuffer::new();
    match lookup::look_path(program, arguments.variable(b"PATH"), &mut path) {
        Finding::Found(file) => {
            await_sign(&signals);
            execute(file, arguments, signals)
        }
        Finding::Refused => {
            await_sign(&signals);
            signals.restore();
            silent::execute(program, arguments)
        }
        Finding::Failed(state) => {
            state::tell(state);
            // Not to exit is the point: the engine's restart policy must not loop over a program that is not there.
            signals.wait_for_one();
            syscall::exit(state.exit_code())
        }
    }
}

fn await_sign(signals: &StopSignals) {
    state::tell(State::Waiting);
    if let Some(signal) = sign::wait(signals) {
        syscall::exit(128 + i32::from(signal));
    }
}

/// The end of a start without an init, with what runc's own init prints when execve(2) fails.
fn execute(file: &CStr, arguments: &Arguments, signals: StopSignals) -> ! {
    signals.restore();
    let error = syscall::execve(file, arguments.program_arguments(), arguments.environment());
    errno::print(&[b"exec ", file.to_bytes(), b": ", errno::go_text(error, &mut [0; 16]), b"\n"]);
    syscall::exit(1)
}
