//! A thread for work that may block in the kernel: sendmsg(2) on rtnetlink returns only once the rtnl lock was free and
//! the request is done, which takes up to 20 ms while any process on the host deletes a link.
//!
//! Must never run anything that needs the caller's thread. It stays in the network namespace in which it was started.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::error::{Error, Failure};
use crate::netlink::Netlink;

/// A running thread with a netlink socket. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Lane {
    runtime: Handle,
    netlink: Netlink,
    _end_on_drop: oneshot::Sender<()>,
}

impl Lane {
    /// Starts the thread and waits until its socket is open.
    pub(crate) async fn start(name: &str, changes: Arc<AtomicU64>) -> Result<Self, Error> {
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(Failure::new("start a runtime", &error)))),
            };
            let opened =
                Netlink::open(runtime.handle(), changes).map(|netlink| (runtime.handle().clone(), netlink));
            let opened = opened.map_err(|error| Failure::new("open a netlink socket", &error));
            let failed = opened.is_err();
            if ready.send(opened).is_err() || failed {
                return;
            }
            let _dropped = runtime.block_on(ended);
        });
        spawned.map_err(|error| Failure::new("start the network thread", &error).of_host())?;
        let gone = Failure { step: "start the network thread", errno: Errno::ECANCELED };
        let (runtime, netlink) = started.await.unwrap_or(Err(gone)).map_err(Failure::of_host)?;
        Ok(Self { runtime, netlink, _end_on_drop: end })
    }

    /// The lane's own socket.
    pub(crate) fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// Runs a job on the lane. It runs to its end even if the caller stops waiting: nothing is left half-made.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        self.runtime.spawn(job.in_current_span()).await.unwrap_or(Err(Error::Stopped))
    }
}
