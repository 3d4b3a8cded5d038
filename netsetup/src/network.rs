//! The handle by which a worker changes the network. Cheap to share; all calls may run side by side.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rtnetlink::Handle;

use crate::error::{Error, errno};
use crate::{Settings, Wire, WireSpec, dump, host, wire};

/// The host's network.
#[derive(Debug)]
pub struct Network {
    pub(crate) settings: Settings,
    pub(crate) handle: Handle,
    pub(crate) mtu: u32,
    changes: AtomicU64,
    /// Wires that are being made or taken out just now, by interface name.
    busy: Mutex<HashSet<String>>,
}

impl Network {
    /// Opens the kernel's side. To be called within a runtime.
    ///
    /// # Errors
    /// Netlink cannot be had.
    pub async fn open(settings: Settings) -> Result<Self, Error> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(Error::system("cannot open a netlink socket"))?;
        tokio::spawn(connection);
        let mtu = match settings.mtu {
            Some(mtu) => mtu,
            None => dump::default_mtu(&handle).await?,
        };
        Ok(Self { settings, handle, mtu, changes: AtomicU64::new(0), busy: Mutex::default() })
    }

    /// Makes the host ready for wires; changes only what is not so already. To be called again whenever the
    /// engine may have rewritten its firewall.
    ///
    /// # Errors
    /// [`Error::Kernel`], [`Error::System`], [`Error::Firewall`].
    pub async fn prepare_host(&self) -> Result<(), Error> {
        host::prepare(self).await
    }

    /// All wires of this Selvedge.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub async fn wires(&self) -> Result<Vec<Wire>, Error> {
        dump::wires(self).await
    }

    /// Makes a wire, or finishes or replaces what is there of it. All but the sign. Whether the container's end
    /// was made just now: the container is in a new life.
    ///
    /// # Errors
    /// [`Error::Gone`] when the container's process has ended; then nothing is left behind.
    pub async fn connect(&self, spec: &WireSpec) -> Result<bool, Error> {
        wire::connect(self, spec).await
    }

    /// Gives the sign, last of all, and marks the wire as complete.
    ///
    /// # Errors
    /// [`Error::Gone`] when the container's process has ended.
    pub async fn release(&self, spec: &WireSpec) -> Result<(), Error> {
        wire::release(self, spec).await
    }

    /// Takes wires out. Slow (the kernel waits for its readers): keep it off every path that somebody waits on.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub async fn disconnect(&self, wires: &[Wire]) -> Result<(), Error> {
        wire::disconnect(self, wires).await
    }

    /// How many changes were made since this handle was opened. What was found right is none.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// Counts a request that adds something; that it is there already is as good.
    pub(crate) fn added(&self, result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
        match result {
            Ok(()) => self.changed(),
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(crate) fn set_busy(&self, name: &str, busy: bool) {
        let mut names = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy {
            names.insert(name.to_owned());
        } else {
            names.remove(name);
        }
    }

    pub(crate) fn is_busy(&self, name: &str) -> bool {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// The group of our interfaces; complete ones have the lowest bit set.
    pub(crate) fn group(&self, complete: bool) -> u32 {
        (self.settings.group & !3) | u32::from(complete)
    }

    /// The group into which interfaces go that are to be deleted together.
    pub(crate) fn doomed_group(&self) -> u32 {
        (self.settings.group & !3) | 2
    }
}
