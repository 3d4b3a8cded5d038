//! Network namespaces of containers: found by process id, entered by a throw-away thread.
//!
//! The one place where a thread changes its namespace. Such a thread opens a socket (which stays in the namespace),
//! corrects the settings under /proc/sys (they are those of the writing thread's namespace), and ends. Must never be a
//! thread of a runtime or of a pool: it would return to its work in the wrong namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::error::Failure;
use crate::identity::CONTAINER_INTERFACE;
use crate::netlink::Netlink;
use crate::sysctl::{self, Setting};

const ENTER: &str = "enter the container's network namespace";

/// A namespace held open: it lives at least as long as this.
#[derive(Debug)]
pub(crate) struct Namespace {
    file: Arc<File>,
    /// Its inode, which no other living namespace has.
    pub(crate) inode: u64,
}

/// What the throw-away thread brings back.
#[derive(Debug)]
pub(crate) struct Inside {
    /// A socket in the namespace.
    pub(crate) netlink: Netlink,
    /// The container's end of the wire, if it is there.
    pub(crate) interface: Option<u32>,
}

/// The inode of a process's network namespace: one stat(2), without entering it.
///
/// # Errors
/// Not found when there is no such process (or it has ended and waits to be reaped).
pub fn inode_of(pid: u32) -> io::Result<u64> {
    Ok(std::fs::metadata(format!("/proc/{pid}/ns/net"))?.ino())
}

/// The inode of the calling thread's own namespace.
pub(crate) fn own_inode() -> io::Result<u64> {
    Ok(std::fs::metadata("/proc/thread-self/ns/net")?.ino())
}

impl Namespace {
    /// Opens the namespace of a process.
    pub(crate) fn of_process(pid: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        let inode = file.metadata()?.ino();
        Ok(Self { file: Arc::new(file), inode })
    }

    /// For a message that names the namespace; valid as long as this lives.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Opens a socket inside, and corrects the settings of the container's interface if it exists.
    pub(crate) async fn enter(
        &self,
        settings: Vec<Setting>,
        changes: &Arc<AtomicU64>,
    ) -> Result<Inside, Failure> {
        let (file, changes, runtime) = (Arc::clone(&self.file), Arc::clone(changes), Handle::current());
        let (done, outcome) = oneshot::channel();
        let thread = std::thread::Builder::new().name("netns".to_owned()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || drop(done.send(visit(&file, &settings, &runtime, changes))));
        spawned.map_err(|error| Failure::new(ENTER, &error))?;
        outcome.await.unwrap_or(Err(Failure { step: ENTER, errno: Errno::ECANCELED }))
    }
}

/// Enough for a few calls; a large stack would only be mapped and unmapped.
const STACK_BYTES: usize = 64 * 1024;

fn visit(
    namespace: &File,
    settings: &[Setting],
    runtime: &Handle,
    changes: Arc<AtomicU64>,
) -> Result<Inside, Failure> {
    move_this_thread(namespace)?;
    let netlink = Netlink::open(runtime, changes)
        .map_err(|error| Failure::new("open a netlink socket in the container", &error))?;
    let interface = if_nametoindex(CONTAINER_INTERFACE).ok();
    if interface.is_some() {
        netlink.count(sysctl::ensure(settings)?);
    }
    Ok(Inside { netlink, interface })
}

#[expect(clippy::disallowed_methods, reason = "the thread does only this visit and ends")]
fn move_this_thread(namespace: &File) -> Result<(), Failure> {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| Failure { step: ENTER, errno })
}
