//! Starts child processes, and keeps the last line that they said before they could serve.
//!
//! It must never give a child more descriptors than stdin, stdout, stderr and the one that it is to have.

use crate::plan::Program;
use rustix::fd::AsRawFd;
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What systemd gives to us alone, and what former images of this keeper left for it.
const NOT_INHERITED: [&str; 7] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "SELVEDGE_KEEPER_STATE",
    "SELVEDGE_KEEPER_TRIAL",
];
/// A line of a child is kept up to this length.
const LINE_MAX: usize = 1000;

/// Starts a program with one of our descriptors. Returns its pid and the reading end of its stderr.
///
/// # Errors
/// What the kernel said to the exec: not found, not executable, another architecture (`ENOEXEC`).
pub(crate) fn spawn(
    program: &Program,
    env: &[(&str, String)],
    pass: BorrowedFd<'_>,
) -> io::Result<(Pid, Capture)> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
    // Only our end: a child does not expect a stderr that refuses to take its words.
    rustix::io::ioctl_fionbio(&writer, false)?;
    let number = pass.as_raw_fd();
    let mut command = Command::new(&program.exe);
    command.args(&program.args).stdin(Stdio::null()).stderr(Stdio::from(writer));
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    for (name, value) in env {
        command.env(name, value);
    }
    // Its own process group: Ctrl-C is for the keeper, who tells its children in order.
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made that are safe there: fcntl and sigprocmask. The
    // descriptor is open then, as the parent holds it until `spawn` is done.
    unsafe {
        command.pre_exec(move || {
            fcntl_setfd(BorrowedFd::borrow_raw(number), FdFlags::empty())?;
            // The signals that we take by signalfd are blocked here, and would stay so.
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    is_executable_here(&program.exe)?;
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    Ok((pid, Capture::new(reader)))
}

/// execvp(3), which std uses, has /bin/sh read what the kernel does not recognise: a binary of another architecture as
/// a script. So that is told before.
fn is_executable_here(exe: &Path) -> io::Result<()> {
    /// Bytes of an ELF header up to and with `e_machine`, and those of them that tell the architecture.
    const HEADER: usize = 20;
    const TELLING: [usize; 8] = [0, 1, 2, 3, 4, 5, 18, 19];
    let read = |path: &Path| {
        let mut header = [0; HEADER];
        // Opening a FIFO would wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(path);
        opened.and_then(|mut file| file.read(&mut header)).map(|_| header)
    };
    let header = match read(exe) {
        // Some files may be executed and not read: the exec itself will tell.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        header => header?,
    };
    let own = read(Path::new("/proc/self/exe"))?;
    if header.starts_with(b"#!") || TELLING.iter().all(|at| header[*at] == own[*at]) {
        return Ok(());
    }
    Err(Errno::NOEXEC.into())
}

/// Ends a child for good.
pub(crate) fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// If that child has ended: how, in words.
pub(crate) fn ended(pid: Pid) -> Option<String> {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(describe(status)),
        Ok(None) | Err(Errno::INTR) => None,
        // Not our child, or not any more.
        Err(_) => Some("is gone".to_owned()),
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// The stderr of a child until it serves: passed on, and its last line kept.
pub(crate) struct Capture {
    /// None after its end.
    fd: Option<OwnedFd>,
    line: Vec<u8>,
    last: String,
}

impl Capture {
    pub(crate) fn new(fd: OwnedFd) -> Capture {
        Capture { fd: Some(fd), line: Vec::new(), last: String::new() }
    }

    /// What to watch, until its end.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is there.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 4096];
        // A bound, as a child could write faster than we read.
        for _ in 0..16 {
            let Some(fd) = &self.fd else { return };
            match rustix::io::read(fd, &mut buffer) {
                Ok(read) if read > 0 => self.take(&buffer[..read]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => self.fd = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let _ = io::stderr().write_all(bytes);
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if !line.trim().is_empty() {
            self.last = line.trim().to_owned();
        }
        self.line.clear();
    }

    /// The last line that is not empty.
    pub(crate) fn last_line(&mut self) -> &str {
        self.end_line();
        &self.last
    }
}
