//! The few system calls that rustix keeps to itself (its `runtime` module is private), and the four memory
//! functions that a compiler may call in any program.
//!
//! Must never grow: what rustix offers is taken from there. x86-64 only; another machine needs its own
//! `_start`, `call` and numbers, here and in `start`.

use core::arch::{asm, global_asm};
use core::ffi::CStr;

use rustix::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("wait speaks to the kernel of x86-64 only: see src/syscall.rs");

const RT_SIGPROCMASK: usize = 14;
const EXECVE: usize = 59;
const EXIT: usize = 60;
const RT_SIGTIMEDWAIT: usize = 128;
const EXIT_GROUP: usize = 231;
const NEWFSTATAT: usize = 262;
const SIGNALFD4: usize = 289;

const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
/// The kernel's signal set: one bit per signal, bit 0 for signal 1.
const SIGNAL_SET_BYTES: usize = 8;
const SFD_CLOEXEC_NONBLOCK: usize = 0o2_004_000;

/// struct __kernel_timespec.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// # Safety
/// As the system call itself: pointers must be good for what it reads and writes.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel clobbers rcx and r11 only; what it does to memory is the caller's promise.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

fn checked(result: isize) -> Result<usize, i32> {
    usize::try_from(result).map_err(|_| i32::try_from(-result).unwrap_or(i32::MAX))
}

/// Ends the process. Where a profile refuses both calls, a signal does.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: both take a number and do not return; the invalid instruction ends who comes so far.
    unsafe {
        call(EXIT_GROUP, code as usize, 0, 0, 0);
        call(EXIT, code as usize, 0, 0, 0);
        asm!("ud2", options(noreturn, nomem, nostack))
    }
}

/// A descriptor that was opened for us. A profile may answer "done" without having opened anything: then the number is
/// that of a descriptor that is not ours and must stay open.
pub(crate) fn opened(descriptor: OwnedFd) -> Option<OwnedFd> {
    match descriptor.as_raw_fd() {
        0..=2 => {
            let _not_ours = descriptor.into_raw_fd();
            None
        }
        _ => Some(descriptor),
    }
}

/// Type and permissions of a file as stat(2) has them in `st_mode`; 0 when the kernel was not asked at all.
pub(crate) fn mode(file: &CStr) -> Result<u32, i32> {
    const AT_FDCWD: usize = -100_isize as usize;
    /// struct stat: three words, then the mode, in 144 bytes.
    const WORDS: usize = 18;
    let mut status = [0_u64; WORDS];
    // SAFETY: the file's name ends with NUL, and the kernel writes no more than a struct stat.
    checked(unsafe { call(NEWFSTATAT, AT_FDCWD, file.as_ptr() as usize, status.as_mut_ptr() as usize, 0) })?;
    Ok(status[3] as u32)
}

/// Becomes another program; returns only with the error number. Both vectors must end with a null pointer.
pub(crate) fn execve(file: &CStr, arguments: *const *const u8, environment: *const *const u8) -> i32 {
    // SAFETY: the file's name ends with NUL, the vectors come from the kernel or from `init` and end with null.
    let result = unsafe { call(EXECVE, file.as_ptr() as usize, arguments as usize, environment as usize, 0) };
    checked(result).err().unwrap_or(0)
}

/// Blocks the signals of `set` and gives back the mask as it was.
pub(crate) fn block_signals(set: u64) -> Result<u64, i32> {
    // No mask has all signals in it: SIGKILL cannot be blocked. So no kernel answers with these bits.
    const NOT_ASKED: u64 = u64::MAX;
    let mut before = NOT_ASKED;
    let (set, out) = (&raw const set as usize, &raw mut before as usize);
    // SAFETY: both sets are eight bytes on this stack.
    checked(unsafe { call(RT_SIGPROCMASK, SIG_BLOCK, set, out, SIGNAL_SET_BYTES) })?;
    if before == NOT_ASKED { Err(0) } else { Ok(before) }
}

/// Sets the signal mask.
pub(crate) fn set_signal_mask(mask: u64) {
    // SAFETY: the set is eight bytes on this stack; nothing is written back.
    let _done = unsafe { call(RT_SIGPROCMASK, SIG_SETMASK, &raw const mask as usize, 0, SIGNAL_SET_BYTES) };
}

/// A descriptor that is readable while one of the signals is pending.
pub(crate) fn signal_descriptor(set: u64) -> Result<OwnedFd, i32> {
    // SAFETY: -1 asks for a new descriptor; the set is eight bytes on this stack.
    let result = unsafe {
        call(SIGNALFD4, usize::MAX, &raw const set as usize, SIGNAL_SET_BYTES, SFD_CLOEXEC_NONBLOCK)
    };
    let descriptor = checked(result)?;
    // SAFETY: the kernel just made it for us, or `opened` gives it up again.
    let descriptor = unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor).unwrap_or(-1)) };
    opened(descriptor).ok_or(0)
}

/// Takes one pending signal of the set, waiting at most so long (`None`: for ever).
pub(crate) fn take_signal(set: u64, milliseconds: Option<u32>) -> Result<u8, i32> {
    let limit = milliseconds.map(|limit| Timespec {
        seconds: i64::from(limit / 1000),
        nanoseconds: i64::from(limit % 1000) * 1_000_000,
    });
    let limit = limit.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    // SAFETY: the set and the limit outlive the call; no siginfo is asked for.
    let result =
        unsafe { call(RT_SIGTIMEDWAIT, &raw const set as usize, 0, limit as usize, SIGNAL_SET_BYTES) };
    let signal = u8::try_from(checked(result)?).unwrap_or(0);
    // A profile may answer "done" without having looked.
    let is_asked_for = (1..=64).contains(&signal) && set & 1 << (signal - 1) != 0;
    if is_asked_for { Ok(signal) } else { Err(0) }
}

// In assembly, because a loop written in Rust is what the compiler turns into a call of these very functions.
global_asm!(
    ".globl memcpy, memmove, memset, memcmp, bcmp, strlen",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "mov r8, rdi",
    "sub r8, rsi",
    // An overlap that a forward copy would spoil: only when 0 <= to - from < length.
    "cmp r8, rdx",
    "jae 2f",
    "lea rdi, [rdi + rdx - 1]",
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld",
    "ret",
    "2:",
    "rep movsb",
    "ret",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    "memcmp:",
    "bcmp:",
    "xor ecx, ecx",
    "2:",
    "cmp rcx, rdx",
    "je 3f",
    "movzx eax, byte ptr [rdi + rcx]",
    "movzx r8d, byte ptr [rsi + rcx]",
    "inc rcx",
    "sub eax, r8d",
    "je 2b",
    "ret",
    "3:",
    "xor eax, eax",
    "ret",
    "strlen:",
    "xor eax, eax",
    "2:",
    "cmp byte ptr [rdi + rax], 0",
    "je 3f",
    "inc rax",
    "jmp 2b",
    "3:",
    "ret",
);
