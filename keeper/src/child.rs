//! Starts child processes, and keeps the last line that each prints before it is ready.
//!
//! It must never give a child more descriptors than stdin, stdout, stderr and the one meant for it.

use crate::plan::Program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsRawFd;
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What systemd gives to the keeper alone, and what former images of the keeper leave for their successor.
const NOT_INHERITED: [&str; 7] = [
    "NOTIFY_SOCKET",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "SELVEDGE_KEEPER_STATE",
    "SELVEDGE_KEEPER_TRIAL",
];
/// A child's line is kept up to this length.
const LINE_MAX: usize = 1000;

/// Starts a program with one of our descriptors. Returns its pid and the read end of its stderr.
///
/// # Errors
/// The kernel's error from exec: not found, not executable, another architecture (`ENOEXEC`).
pub(crate) fn spawn(
    program: &Program,
    env: &[(&str, String)],
    pass: BorrowedFd<'_>,
) -> io::Result<(Pid, Capture)> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)?;
    // Only our end: a child does not expect writes to its stderr to fail with EAGAIN.
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
    // A process group of its own: Ctrl-C is for the keeper, which stops its children in order.
    command.process_group(0);
    // SAFETY: between fork and exec the child makes only async-signal-safe system calls: fcntl and sigprocmask. The
    // descriptor is open then, as the parent holds it until `spawn` returns.
    unsafe {
        command.pre_exec(move || {
            fcntl_setfd(BorrowedFd::borrow_raw(number), FdFlags::empty())?;
            // We block the signals that we take by signalfd; the child would inherit the mask.
            nix::sys::signal::SigSet::empty().thread_set_mask()?;
            Ok(())
        });
    }
    is_executable_here(&program.exe)?;
    let child = command.spawn()?;
    let pid = Pid::from_child(&child);
    Ok((pid, Capture::new(reader)))
}

/// execvp(3), which std uses, hands what the kernel does not recognise to /bin/sh: a binary of another architecture
/// would run as a script. So check beforehand.
fn is_executable_here(exe: &Path) -> io::Result<()> {
    /// The bytes of an ELF header up to and including `e_machine`, and those of them that name the architecture.
    const HEADER: usize = 20;
    const TELLING: [usize; 8] = [0, 1, 2, 3, 4, 5, 18, 19];
    let read = |path: &Path| {
        let mut header = [0; HEADER];
        // Opening a FIFO would block until a writer appears.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(path);
        opened.and_then(|mut file| file.read(&mut header)).map(|_| header)
    };
    let header = match read(exe) {
        // Some files can be executed but not read: let exec itself report that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        header => header?,
    };
    let own = read(Path::new("/proc/self/exe"))?;
    if header.starts_with(b"#!") || TELLING.iter().all(|at| header[*at] == own[*at]) {
        return Ok(());
    }
    Err(Errno::NOEXEC.into())
}

/// Sends SIGKILL to a child.
pub(crate) fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// How that child ended, in words; none while it runs.
pub(crate) fn ended(pid: Pid) -> Option<String> {
    match waitpid(Some(pid), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(describe(status)),
        Ok(None) | Err(Errno::INTR) => None,
        // Not our child, or already reaped.
        Err(_) => Some("is gone".to_owned()),
    }
}

/// The same for a process that may be the child of a keeper that was killed: how it ended is told to its parent only.
pub(crate) fn ended_by(pid: Pid, process: BorrowedFd<'_>) -> Option<String> {
    let how = ended(pid)?;
    let mut polled = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_over = poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0);
    is_over.then_some(how)
}

/// A descriptor that becomes readable when that process ends; none where the kernel is too old (before 5.3).
pub(crate) fn process(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (_, Some(signal)) => format!("was killed by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// A child's stderr until it is ready: passed on, with its last line kept.
pub(crate) struct Capture {
    /// None after end of file.
    fd: Option<OwnedFd>,
    line: Vec<u8>,
    last: String,
}

impl Capture {
    pub(crate) fn new(fd: OwnedFd) -> Capture {
        Capture { fd: Some(fd), line: Vec::new(), last: String::new() }
    }

    /// The descriptor to watch, until end of file.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Reads what is available.
    pub(crate) fn read(&mut self) {
        let mut buffer = [0; 4096];
        // Bounded, as a child could write faster than we read.
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
