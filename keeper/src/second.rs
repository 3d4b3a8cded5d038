//! The second: a process that shares the keeper's table of descriptors (CLONE_FILES) and its shared memory, and takes over
//! when the keeper is killed.
//!
//! Because the table is one, the second holds every descriptor from the instant in which the keeper opens it, and none
//! that the keeper has closed; nothing is sent to it. It must never read, write or close any of them while the keeper
//! lives, and never take over from a keeper that ends on purpose.

mod watch;

use crate::error::Error;
use crate::image::{Image, own_file};
use crate::plan::Program;
use crate::second::watch::Watch;
use crate::shared::Shared;
use crate::shared::board::Board;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use std::io;
use std::os::fd::OwnedFd;

/// What a second needs, made ready once: it can be started whenever the last one has died.
pub(crate) struct Seconds {
    /// Executed to take over.
    file: OwnedFd,
    image: Image,
    /// This process.
    keeper: OwnedFd,
    running: Option<Pid>,
}

impl Seconds {
    /// # Errors
    /// The kernel is too old (before 5.3), or there is no /proc.
    pub(crate) fn new(program: &Program, shared: &Shared) -> Result<Seconds, Error> {
        let keeper = pidfd_open(rustix::process::getpid(), PidfdFlags::empty());
        let keeper = keeper.map_err(Error::os("pidfd_open"))?;
        let image = Image::new(program, shared.number())?;
        Ok(Seconds { file: own_file()?, image, keeper, running: None })
    }

    /// The process, if there is one.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.running
    }

    /// Starts one. `before`: the board of the keeper from which this one takes over, until that is over.
    ///
    /// # Errors
    /// The kernel's, for instance at its limit of processes.
    pub(crate) fn start(&mut self, board: &Board, before: Option<&Board>) -> io::Result<Pid> {
        let watch = Watch { file: &self.file, image: &self.image, board, before };
        let pid = watch.fork(&self.keeper)?;
        self.running = Some(pid);
        Ok(pid)
    }

    /// True, once, if it has died.
    pub(crate) fn has_died(&mut self) -> bool {
        self.running.take_if(|pid| !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(None))).is_some()
    }

    /// Ends it: there is nothing to take over any more.
    pub(crate) fn end(&mut self) {
        if let Some(pid) = self.running.take() {
            end(pid);
        }
    }
}

/// Ends a second that is a child of this process, and waits until its descriptors are closed.
pub(crate) fn end(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
    while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(rustix::io::Errno::INTR)) {}
}
