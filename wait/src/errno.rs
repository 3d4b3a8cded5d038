//! Error numbers as text, in the two dialects that people know: Go's (runc) and glibc's (tini).
//!
//! Both have the same words; glibc's begin with a capital. Must never allocate.

use rustix::fd::BorrowedFd;

/// No such file or directory.
pub(crate) const ENOENT: i32 = 2;
/// Exec format error: an executable file that the kernel cannot load.
pub(crate) const ENOEXEC: i32 = 8;
/// Permission denied.
pub(crate) const EACCES: i32 = 13;
/// Not a directory: a path that leads through a file.
pub(crate) const ENOTDIR: i32 = 20;

/// Error numbers that execve(2) and stat(2) document, with their text in lower case.
const TEXTS: [(i32, &[u8]); 17] = [
    (1, b"operation not permitted"),
    (ENOENT, b"no such file or directory"),
    (5, b"input/output error"),
    (7, b"argument list too long"),
    (ENOEXEC, b"exec format error"),
    (12, b"cannot allocate memory"),
    (EACCES, b"permission denied"),
    (14, b"bad address"),
    (ENOTDIR, b"not a directory"),
    (21, b"is a directory"),
    (22, b"invalid argument"),
    (23, b"too many open files in system"),
    (24, b"too many open files"),
    (26, b"text file busy"),
    (36, b"file name too long"),
    (40, b"too many levels of symbolic links"),
    (80, b"accessing a corrupted shared library"),
];

/// The text as Go has it; a number without text becomes `errno N`, written into `buffer`.
pub(crate) fn go_text(error: i32, buffer: &mut [u8; 16]) -> &[u8] {
    match text(error) {
        Some(text) => text,
        None => numbered(b"errno ", error, buffer),
    }
}

/// The text without its first letter, and that letter as glibc has it: a capital.
pub(crate) fn glibc_text(error: i32) -> ([u8; 1], &'static [u8]) {
    match text(error).and_then(<[u8]>::split_first) {
        Some((first, rest)) => ([first.to_ascii_uppercase()], rest),
        None => (*b"U", b"nknown error"),
    }
}

/// `prefix` followed by a number of at most four digits, which no Linux errno exceeds.
pub(crate) fn numbered<'a>(prefix: &[u8], number: i32, buffer: &'a mut [u8; 16]) -> &'a [u8] {
    let mut length = 0;
    let mut push = |byte: u8| {
        if let Some(place) = buffer.get_mut(length) {
            *place = byte;
            length += 1;
        }
    };
    prefix.iter().for_each(|byte| push(*byte));
    let mut scale = 1_000_000_000;
    while scale > 1 && number < scale {
        scale /= 10;
    }
    while scale > 0 {
        push(b'0' + u8::try_from(number / scale % 10).unwrap_or(0));
        scale /= 10;
    }
    buffer.get(..length).unwrap_or(&[])
}

/// Writes the parts to standard error; its reader may be gone, which changes nothing for us.
pub(crate) fn print(parts: &[&[u8]]) {
    // SAFETY: descriptor 2 was open when we were started, and nothing in this program closes it.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    for part in parts {
        let _lost = rustix::io::write(stderr, part);
    }
}

fn text(error: i32) -> Option<&'static [u8]> {
    TEXTS.iter().find(|(number, _)| *number == error).map(|(_, text)| *text)
}
