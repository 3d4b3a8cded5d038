//! Finds the program as runc does before it starts a container: Go's os/exec.LookPath, then access(2).
//!
//! Done here, before the wait, because the engine has to hear of a missing program while its start call is still
//! unanswered. Must never run anything.

use core::ffi::CStr;

use rustix::fs::{Access, FileType, access};
use rustix::io::Errno;

use crate::state::State;
use crate::{errno, syscall};

/// Linux's limit for a path, its NUL included (PATH_MAX).
const PATH_BYTES: usize = 4096;

/// What the look-up gives.
pub(crate) enum Finding<'a> {
    /// The file to execute.
    Found(&'a CStr),
    /// Why there is none.
    Failed(State),
    /// Nothing is known: a seccomp profile refuses the questions.
    Refused,
}

/// Looks `program` up; `buffer` holds the path that was found.
pub(crate) fn look_path<'a>(
    program: &'a CStr,
    path: Option<&[u8]>,
    buffer: &'a mut PathBuffer,
) -> Finding<'a> {
    let name = program.to_bytes();
    let Some(questions) = Questions::tried() else { return Finding::Refused };
    let probe = |file: &CStr| questions.probe(file);
    if name.contains(&b'/') {
        return match probe(program) {
            Ok(()) => Finding::Found(program),
            Err(state) => Finding::Failed(state),
        };
    }
    for directory in directories(path.unwrap_or_default()) {
        let found = buffer.join(directory, name).is_some_and(|file| probe(file).is_ok());
        if !found {
            continue;
        }
        if directory.first() != Some(&b'/') {
            return Finding::Failed(State::InWorkingDirectory);
        }
        return match buffer.as_path() {
            Some(file) => Finding::Found(file),
            None => Finding::Failed(State::NotInPath),
        };
    }
    Finding::Failed(State::NotInPath)
}

/// The directories of a search path; an empty path has none, while an empty part means the working directory.
fn directories(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let present = !path.is_empty();
    path.split(|byte| *byte == b':').filter(move |_| present)
}

/// Tries every file that `program` may mean, in the order of [`look_path`], until one gives another error than that it
/// is not there or cannot be executed.
pub(crate) fn each_candidate(
    program: &CStr,
    path: Option<&[u8]>,
    buffer: &mut PathBuffer,
    mut execute: impl FnMut(&CStr) -> i32,
) -> i32 {
    let name = program.to_bytes();
    if name.contains(&b'/') {
        return execute(program);
    }
    for directory in directories(path.unwrap_or_default()).filter(|path| path.first() == Some(&b'/')) {
        let error = buffer.join(directory, name).map_or(errno::ENOENT, &mut execute);
        if !matches!(error, errno::ENOENT | errno::ENOTDIR | errno::EACCES) {
            return error;
        }
    }
    errno::ENOENT
}

/// The questions about a file that the kernel answers us.
struct Questions {
    access: bool,
}

impl Questions {
    /// Tries them where the answer is known: a profile may refuse them with any error number, and then "no such file"
    /// would mean nothing. `None` when not even stat(2) is answered.
    fn tried() -> Option<Self> {
        let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        let yes = || access(c"/", Access::EXISTS).is_ok();
        let no = || access(c"", Access::EXISTS) == Err(Errno::NOENT);
        syscall::mode(c"/").is_ok_and(is_directory).then(|| Self { access: yes() && no() })
    }

    /// Whether the file may be executed by us. access(2) asks for the real user, who in a container is the effective one.
    fn probe(&self, file: &CStr) -> Result<(), State> {
        let mode = syscall::mode(file).map_err(|error| match error {
            errno::ENOENT => State::Missing,
            number => State::Unreachable(number),
        })?;
        if FileType::from_raw_mode(mode) == FileType::Directory {
            return Err(State::Directory);
        }
        // Where access(2) is refused, the mode bits decide, as in Go.
        let executable = if self.access { access(file, Access::EXEC_OK).is_ok() } else { mode & 0o111 != 0 };
        if executable { Ok(()) } else { Err(State::NotExecutable) }
    }
}

/// A path put together on the stack.
pub(crate) struct PathBuffer {
    bytes: [u8; PATH_BYTES],
    length: usize,
}

impl PathBuffer {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; PATH_BYTES], length: 0 }
    }

    /// `directory/name`, cleaned as Go's filepath.Join does: a script sees this path in its `$0`.
    /// `None` when it is too long for Linux.
    pub(crate) fn join(&mut self, directory: &[u8], name: &[u8]) -> Option<&CStr> {
        self.length = 0;
        let rooted = directory.first() == Some(&b'/');
        if rooted {
            self.push(b"/")?;
        }
        let floor = self.length;
        let parts = directory.split(|byte| *byte == b'/').chain([name]);
        for part in parts.filter(|part| !matches!(*part, b"" | b".")) {
            match part {
                b".." if self.drop_last(floor) || rooted => {}
                _ => self.push_part(floor, part)?,
            }
        }
        if self.length == 0 {
            self.push(b".")?;
        }
        self.as_path()
    }

    /// `directory/name` as glibc's execvp puts it together; an empty directory gives the bare name.
    pub(crate) fn join_plain(&mut self, directory: &[u8], name: &[u8]) -> Option<&CStr> {
        self.length = 0;
        self.push(directory)?;
        if !directory.is_empty() {
            self.push(b"/")?;
        }
        self.push(name)?;
        self.as_path()
    }

    /// The path as it stands.
    pub(crate) fn as_path(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(self.bytes.get(..=self.length)?).ok()
    }

    fn push_part(&mut self, floor: usize, part: &[u8]) -> Option<()> {
        if self.length > floor {
            self.push(b"/")?;
        }
        self.push(part)
    }

    /// Takes the last part off, unless there is none or it is itself a way up.
    fn drop_last(&mut self, floor: usize) -> bool {
        let Some(path) = self.bytes.get(floor..self.length) else { return false };
        let start = path.iter().rposition(|byte| *byte == b'/');
        let last = path.get(start.map_or(0, |slash| slash + 1)..).unwrap_or_default();
        if matches!(last, b"" | b"..") {
            return false;
        }
        self.length = floor + start.unwrap_or(0);
        self.terminate();
        true
    }

    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        if end >= PATH_BYTES {
            return None;
        }
        self.bytes.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        self.terminate();
        Some(())
    }

    fn terminate(&mut self) {
        if let Some(end) = self.bytes.get_mut(self.length) {
            *end = 0;
        }
    }
}
