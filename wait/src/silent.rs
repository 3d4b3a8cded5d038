//! What is left where any system call may be the last: under a profile that ends a process for calls it does not list.
//!
//! The engine itself called execve(2) under the profile to start us, so that one call is safe. Must never make another
//! one before the program runs: not to look it up, not to sleep, not to tell anything.

use core::ffi::CStr;

use crate::arguments::Arguments;
use crate::lookup::{self, PathBuffer};
use crate::state::State;
use crate::{errno, mailbox, syscall};

/// By what the last letter of our own name says that the create saw such a profile.
const MARK: u8 = b'0';

/// Whether we were started to be silent. The path under which we are mounted says so, since the arguments are the program's.
pub(crate) fn is_wanted(arguments: &Arguments) -> bool {
    arguments.own_name().is_some_and(|name| name.to_bytes().last() == Some(&MARK))
}

/// Waits for the gate and becomes the program.
pub(crate) fn run(program: &CStr, arguments: &Arguments) -> ! {
    mailbox::tell(&State::Waiting.name());
    while !mailbox::is_gate_open() {
        core::hint::spin_loop();
    }
    execute(program, arguments)
}

/// Finds the program by execve(2) itself, in the order of [`lookup::look_path`]. A program that is not there ends us
/// with the codes that the engine has for it.
pub(crate) fn execute(program: &CStr, arguments: &Arguments) -> ! {
    let mut path = PathBuffer::new();
    let error = lookup::each_candidate(program, arguments.variable(b"PATH"), &mut path, |file| {
        syscall::execve(file, arguments.program_arguments(), arguments.environment())
    });
    syscall::exit(match error {
        errno::ENOENT | errno::ENOTDIR => 127,
        errno::EACCES => 126,
        _ => 1,
    })
}
