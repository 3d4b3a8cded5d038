//! Where the program is, looked for as container runtimes do before they say that a container has started
//! (runc: Go's `exec.LookPath`).

use core::ffi::CStr;

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

/// What a look-up found.
pub(crate) enum Verdict {
    /// It is in the buffer.
    Found,
    /// A bare name that is in no directory of $PATH.
    NotInPath,
    /// A path that is not there.
    NoEntry,
    /// A file that may not be executed.
    NotExecutable,
    /// A directory.
    Directory,
}

// PATH_MAX of linux/limits.h.
const MAX: usize = 4096;

/// A path, ended by a zero.
pub(crate) struct PathBuffer {
    bytes: [u8; MAX],
}

impl PathBuffer {
    /// An empty path.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; MAX] }
    }

    /// The path.
    pub(crate) fn as_c_str(&self) -> &CStr {
        // `set` leaves room for the zero, so there always is one.
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }

    /// False when it is too long.
    fn set(&mut self, parts: &[&[u8]]) -> bool {
        let mut len = 0;
        for part in parts {
            if len + part.len() >= MAX {
                return false;
            }
            self.bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        self.bytes[len] = 0;
        true
    }
}

/// Looks a program up and leaves its path in `path`; where there is none, the name as it was given.
pub(crate) fn find(program: &CStr, search: &[u8], path: &mut PathBuffer) -> Verdict {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        path.set(&[name]);
        return look(path.as_c_str());
    }
    for directory in search.split(|byte| *byte == b':') {
        let directory = if directory.is_empty() { b"." } else { directory };
        if !name.is_empty()
            && path.set(&[directory, b"/", name])
            && matches!(look(path.as_c_str()), Verdict::Found)
        {
            return Verdict::Found;
        }
    }
    path.set(&[name]);
    Verdict::NotInPath
}

fn look(path: &CStr) -> Verdict {
    match stat(path) {
        Err(Errno::ACCESS) => Verdict::NotExecutable,
        Err(_) => Verdict::NoEntry,
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => Verdict::Directory,
        Ok(found) if found.st_mode & 0o111 == 0 => Verdict::NotExecutable,
        // A kernel or a seccomp profile without faccessat2 says ENOSYS or EPERM; execve will tell then.
        Ok(_) => match accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS) {
            Err(Errno::ACCESS) => Verdict::NotExecutable,
            _ => Verdict::Found,
        },
    }
}
