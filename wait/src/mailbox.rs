//! A page of our own memory by which we and the worker speak without a system call: it reads our state there, and
//! opens the gate there (`/proc/PID/mem`).
//!
//! No seccomp profile can refuse a read of memory. Address and layout are a contract with workers of every version, as
//! the names in `state` are: must never change.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Linux keeps 15 bytes of a thread's name and a NUL (TASK_COMM_LEN), and so does the mailbox.
pub(crate) const NAME_BYTES: usize = 16;

/// The section that `build.rs` has the linker put at the address that the worker knows.
#[repr(C)]
struct Mailbox {
    /// By which the worker knows the page: no other program has it there.
    mark: [u8; 16],
    /// The state's name, ended by NUL. Nothing yet: all are NUL.
    state: [AtomicU8; NAME_BYTES],
    /// Not zero once the wire is up.
    gate: AtomicU32,
}

// A cell around the whole keeps the section writable, and the compiler from assuming what is in it.
struct Page(UnsafeCell<Mailbox>);

// SAFETY: there is one thread, and all that changes is atomic.
unsafe impl Sync for Page {}

#[used]
#[unsafe(link_section = ".mailbox")]
static PAGE: Page = Page(UnsafeCell::new(Mailbox {
    mark: *b"selvedge mailbox",
    state: [const { AtomicU8::new(0) }; NAME_BYTES],
    gate: AtomicU32::new(0),
}));

fn mailbox() -> &'static Mailbox {
    // SAFETY: the page is never borrowed for writing; what is written is written atomically.
    unsafe { &*PAGE.0.get() }
}

/// Lets the worker read a state. The first byte comes last, so that it never reads half a name.
pub(crate) fn tell(name: &[u8; NAME_BYTES]) {
    for (place, byte) in mailbox().state.iter().zip(name).rev() {
        place.store(*byte, Ordering::Release);
    }
}

/// Whether the worker has said that the wire is up.
pub(crate) fn is_gate_open() -> bool {
    mailbox().gate.load(Ordering::Acquire) != 0
}
