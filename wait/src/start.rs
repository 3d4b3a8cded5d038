//! How the process begins: the entry that the kernel jumps to.
//!
//! Must never do anything before the stack pointer is known: there is no C runtime that would have.

use core::arch::naked_asm;

use crate::arguments::Arguments;

/// Where the kernel jumps to, with the argument count at the stack pointer.
///
/// # Safety
/// Only the kernel may call it, once, on a fresh stack.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    // The ABI wants the outermost frame marked by rbp = 0, and the stack aligned to 16 at a call.
    naked_asm!("xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {enter}", enter = sym enter)
}

extern "C" fn enter(stack: *const usize) -> ! {
    // SAFETY: `_start` passes the initial stack pointer.
    let arguments = unsafe { Arguments::at(stack) };
    crate::run(&arguments)
}

// Profiles that unwind are never linked, only checked: there std has its own handler.
#[cfg(panic = "abort")]
#[panic_handler]
fn on_panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    crate::syscall::exit(70)
}
