//! The few system calls that rustix does not offer to a program without a C library, and small words on top.

use core::arch::asm;
use core::ffi::{CStr, c_char};

use rustix::fs::{Mode, OFlags};

/// An error of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(i32);

impl Errno {
    pub(crate) const NOENT: Self = Self(2);
    pub(crate) const ACCES: Self = Self(13);

    /// As Go's runtime words it, which is what runc prints.
    pub(crate) fn text(self) -> &'static [u8] {
        match self.0 {
            1 => b"operation not permitted",
            2 => b"no such file or directory",
            7 => b"argument list too long",
            8 => b"exec format error",
            12 => b"cannot allocate memory",
            13 => b"permission denied",
            20 => b"not a directory",
            26 => b"text file busy",
            40 => b"too many levels of symbolic links",
            _ => b"input/output error",
        }
    }

    /// As the C library words it, which is what tini prints.
    pub(crate) fn long_text(self) -> &'static [u8] {
        match self.0 {
            1 => b"Operation not permitted",
            2 => b"No such file or directory",
            7 => b"Argument list too long",
            8 => b"Exec format error",
            12 => b"Cannot allocate memory",
            13 => b"Permission denied",
            20 => b"Not a directory",
            26 => b"Text file busy",
            40 => b"Too many levels of symbolic links",
            _ => b"Input/output error",
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod number {
    pub(super) const RT_SIGPROCMASK: usize = 14;
    pub(super) const EXECVE: usize = 59;
    pub(super) const EXIT_GROUP: usize = 231;
    pub(super) const SIGNALFD4: usize = 289;
}

#[cfg(target_arch = "aarch64")]
mod number {
    pub(super) const SIGNALFD4: usize = 74;
    pub(super) const EXIT_GROUP: usize = 94;
    pub(super) const RT_SIGPROCMASK: usize = 135;
    pub(super) const EXECVE: usize = 221;
}

/// # Safety
/// As the system call with this number asks for.
#[cfg(target_arch = "x86_64")]
unsafe fn call(number: usize, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    let result;
    // SAFETY: the kernel's calling convention (syscall(2)); rcx and r11 are the instruction's own.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// # Safety
/// As the system call with this number asks for.
#[cfg(target_arch = "aarch64")]
unsafe fn call(number: usize, arguments: [usize; 4]) -> isize {
    let [a, b, c, d] = arguments;
    let result;
    // SAFETY: the kernel's calling convention (syscall(2)).
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a => result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

/// Ends the process.
pub(crate) fn exit(code: i32) -> ! {
    loop {
        // SAFETY: takes a number, and does not come back.
        unsafe { call(number::EXIT_GROUP, [code.unsigned_abs() as usize, 0, 0, 0]) };
    }
}

/// Becomes another program; comes back only with an error.
pub(crate) fn execve(
    path: &CStr,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) -> Errno {
    // SAFETY: both vectors are the kernel's own from our start, ended by null pointers.
    let result = unsafe {
        call(number::EXECVE, [path.as_ptr() as usize, arguments as usize, environment as usize, 0])
    };
    Errno(i32::try_from(-result).unwrap_or(0))
}

/// Sets the signal mask; gives back the one before.
pub(crate) fn set_signal_mask(mask: u64) -> u64 {
    const SIG_SETMASK: usize = 2;
    let mut old = 0_u64;
    // SAFETY: both point to eight bytes, which is what the last argument says.
    unsafe {
        call(number::RT_SIGPROCMASK, [SIG_SETMASK, &raw const mask as usize, &raw mut old as usize, 8])
    };
    old
}

/// A descriptor that is readable when one of the signals is pending; negative when it cannot be had.
pub(crate) fn signalfd(mask: u64) -> i32 {
    const SFD_CLOEXEC: usize = 0o2_000_000;
    // SAFETY: the mask is eight bytes, which is what the third argument says.
    let result = unsafe { call(number::SIGNALFD4, [usize::MAX, &raw const mask as usize, 8, SFD_CLOEXEC]) };
    i32::try_from(result).unwrap_or(-1)
}

/// Writes to stderr, one part after the other. What cannot be written has no other place to go.
pub(crate) fn say(parts: &[&[u8]]) {
    // SAFETY: the engine opens stderr for us; at worst it is closed and the write fails.
    let stderr = unsafe { rustix::fd::BorrowedFd::borrow_raw(2) };
    for part in parts {
        let _ = rustix::io::write(stderr, part);
    }
}

/// A number in decimal digits.
pub(crate) fn decimal(mut number: u32, buffer: &mut [u8; 10]) -> &[u8] {
    let mut at = buffer.len();
    loop {
        at -= 1;
        buffer[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[at..];
        }
    }
}

/// Reads /proc/PID/comm; how many bytes there were.
pub(crate) fn read_comm(pid: i32, buffer: &mut [u8; 16]) -> usize {
    let mut path = [0; 32];
    let mut digits = [0; 10];
    let mut len = 0;
    for part in [&b"/proc/"[..], decimal(pid.unsigned_abs(), &mut digits), b"/comm\0"] {
        path[len..len + part.len()].copy_from_slice(part);
        len += part.len();
    }
    let Ok(path) = CStr::from_bytes_until_nul(&path) else { return 0 };
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return 0 };
    rustix::io::read(&file, &mut buffer[..]).unwrap_or(0)
}
