//! The first instructions, and what the kernel put on the stack for us (execve(2); System V ABI, 3.4.1).

use core::arch::naked_asm;
use core::ffi::{CStr, c_char};

/// The program's arguments and environment, as the kernel laid them down. They live as long as the process.
pub(crate) struct Arguments {
    count: usize,
    vector: *const *const c_char,
}

impl Arguments {
    /// One argument; the first is our own name.
    pub(crate) fn get(&self, index: usize) -> Option<&'static CStr> {
        if index >= self.count {
            return None;
        }
        // SAFETY: the kernel put `count` pointers to C strings there, which nobody changes.
        Some(unsafe { CStr::from_ptr(*self.vector.add(index)) })
    }

    /// The vector from that argument on, ended by a null pointer.
    pub(crate) fn from(&self, index: usize) -> *const *const c_char {
        // SAFETY: `count` pointers and a null pointer are there; an index beyond is brought back to the null.
        unsafe { self.vector.add(index.min(self.count)) }
    }

    /// The environment's vector, ended by a null pointer.
    pub(crate) fn environment(&self) -> *const *const c_char {
        // SAFETY: it follows the null pointer behind the arguments.
        unsafe { self.vector.add(self.count + 1) }
    }

    /// The value of $PATH.
    pub(crate) fn path(&self) -> &'static [u8] {
        let mut at = self.environment();
        loop {
            // SAFETY: the vector is ended by a null pointer, at which we stop.
            let entry = unsafe { *at };
            if entry.is_null() {
                return b"";
            }
            // SAFETY: each entry is a C string which nobody changes.
            let bytes = unsafe { CStr::from_ptr(entry) }.to_bytes();
            if let Some(value) = bytes.strip_prefix(b"PATH=") {
                return value;
            }
            // SAFETY: not yet at the null pointer.
            at = unsafe { at.add(1) };
        }
    }
}

/// Where the kernel begins: hands the stack pointer on, and never comes back.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("mov rdi, rsp", "and rsp, -16", "call {begin}", "ud2", begin = sym begin)
}

/// Where the kernel begins: hands the stack pointer on, and never comes back.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn _start() -> ! {
    naked_asm!("mov x0, sp", "and sp, x0, #-16", "bl {begin}", "brk #1", begin = sym begin)
}

/// # Safety
/// `stack` must be the stack pointer of the process's first instruction.
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel puts the number of arguments first, and their vector behind it.
    let arguments = unsafe { Arguments { count: *stack, vector: stack.add(1).cast() } };
    crate::run(&arguments)
}

// The compiler makes calls to these of its own accord, and no C library is there to have them. Written with
// volatile or byte steps, lest the compiler turn them into calls to themselves.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: the caller gives `count` bytes on both sides.
        unsafe { to.add(at).write_volatile(*from.add(at)) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if to.cast_const() < from {
        // SAFETY: as the caller's; forwards nothing is overwritten before it is read.
        return unsafe { memcpy(to, from, count) };
    }
    for at in (0..count).rev() {
        // SAFETY: the caller gives `count` bytes on both sides.
        unsafe { to.add(at).write_volatile(*from.add(at)) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: the caller gives `count` bytes.
        unsafe { to.add(at).write_volatile(byte.to_le_bytes()[0]) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller gives `count` bytes on both sides.
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let mut len = 0;
    // SAFETY: the caller's string is ended by a zero, at which we stop.
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}
