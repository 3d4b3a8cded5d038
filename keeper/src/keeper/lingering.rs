//! SIGQUIT: the keeper exits, and the remaining streams continue in a process of their own, which exits with the last
//! of them. So a restart of the service cuts no stream.
//!
//! It must never keep anything but streams: sockets, lock and control socket are for the next keeper.

use super::{Keeper, take_signals};
use crate::error::Error;
use crate::poller::{Interest, Poller, Token};
use crate::pump::Pump;
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, fork};
use std::time::Duration;

/// What `ps -o comm` shows of such a process.
const NAME: &std::ffi::CStr = c"selvedge:last";

/// Streams without a keeper.
pub(super) struct Lingering {
    poller: Poller,
    pump: Pump,
    log: fn(&str),
}

impl Keeper {
    /// Drops everything but the streams. Clients that wait for a worker are cut: there will be none here.
    pub(super) fn into_lingering(self) -> Lingering {
        self.poller.remove(&self.signals);
        Lingering { poller: self.poller, pump: self.pump, log: self.plan.log }
    }
}

impl Lingering {
    /// Forks: returns in the keeper at once, and in the new process when the last stream has ended.
    ///
    /// # Errors
    /// If the fork fails; the streams are cut then.
    pub(super) fn go_on(self) -> Result<(), Error> {
        let count = self.pump.len();
        // SAFETY: this process has only one thread (see `run`), so no lock is held and nothing is half done in the
        // child.
        match unsafe { fork() }.map_err(Error::os("fork"))? {
            ForkResult::Parent { child } => {
                (self.log)(&format!("stopped; {count} streams go on in process {child} until they end"));
                Ok(())
            }
            ForkResult::Child => self.pump_to_the_end(),
        }
    }

    fn pump_to_the_end(mut self) -> Result<(), Error> {
        let _ = nix::sys::prctl::set_name(NAME);
        // epoll reports signals to the process that added the signalfd, so add this process's own.
        let signals = take_signals()?;
        self.poller.add(&signals, Token::Signals, Interest::Read).map_err(Error::os("signalfd"))?;
        while self.pump.len() > 0 {
            if is_told_to_stop(&signals) {
                (self.log)(&format!("told to stop: the last {} streams are cut", self.pump.len()));
                return Ok(());
            }
            self.turn()?;
        }
        (self.log)("the last streams have ended");
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Error> {
        let timeout = self.pump.has_work().then_some(Duration::ZERO);
        let count = self.poller.wait(timeout).map_err(Error::os("epoll"))?;
        for number in 0..count {
            if let Some(happening) = self.poller.event(number) {
                self.pump.note(happening);
            }
        }
        self.pump.run(&self.poller);
        // No worker will find them another upstream, so nothing can be resumed.
        self.pump.take_ended();
        Ok(())
    }
}

/// Reads all pending signals. Upgrades and restarts are for the next keeper.
fn is_told_to_stop(signals: &SignalFd) -> bool {
    let waiting = std::iter::from_fn(|| signals.read_signal().ok().flatten());
    let stops = [Signal::SIGTERM as u32, Signal::SIGINT as u32];
    waiting.filter(|signal| stops.contains(&signal.ssi_signo)).count() > 0
}
