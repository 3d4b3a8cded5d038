//! The page in the memory of a waiting `wait` by which the two speak where a seccomp profile leaves it no system calls:
//! it says there what it found, and we open its gate there.
//!
//! Must never write into any other program: what is opened stays the memory of the program that ran then, and only
//! `wait` has the mark in it. Nothing is there in a `wait` of an earlier version, which sees the route.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;

use nix::libc;

/// Where `wait/build.rs` has it put, and its parts (`wait/src/mailbox.rs`).
const ADDRESS: u64 = 0x1000_0000;
const MARK: &[u8; 16] = b"selvedge mailbox";
const STATE: std::ops::Range<usize> = 16..32;
const GATE: u64 = 32;
const BYTES: usize = 36;

/// The state that a `wait` has told there; empty before its first word. `None` where there is no mailbox, or no process.
pub fn state(pid: u32) -> Option<String> {
    let file = File::open(memory(pid)).ok()?;
    let page = read(&file).ok()??;
    let name = page.get(STATE)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(name.to_vec()).ok()
}

/// Tells a `wait` that its wire is up; gives whether there was one that can be told so.
///
/// # Errors
/// When we may not: in a container of our own that lacks `SYS_PTRACE`.
pub fn open_gate(pid: u32) -> io::Result<bool> {
    let written = OpenOptions::new().read(true).write(true).open(memory(pid)).and_then(|file| {
        let found = read(&file)?.is_some();
        if found {
            file.write_all_at(&1_u32.to_ne_bytes(), ADDRESS + GATE)?;
        }
        Ok(found)
    });
    match written {
        Err(error) if is_gone(&error) => Ok(false),
        written => written,
    }
}

/// The page, if this is the memory of a `wait` that has one.
fn read(memory: &File) -> io::Result<Option<[u8; BYTES]>> {
    let mut page = [0; BYTES];
    match memory.read_exact_at(&mut page, ADDRESS) {
        Ok(()) => Ok(Some(page).filter(|page| page.starts_with(MARK))),
        // Nothing is mapped there.
        Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(None),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The process has ended, or has become another program since its memory was opened: then there is nothing to read.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero)
        || error.raw_os_error() == Some(libc::ESRCH)
}

fn memory(pid: u32) -> String {
    format!("/proc/{pid}/mem")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_has_no_mailbox_and_is_not_written_into() {
        let own = std::process::id();
        assert_eq!(state(own), None);
        assert!(!open_gate(own).unwrap());
        assert!(!open_gate(u32::MAX).unwrap());
    }
}
