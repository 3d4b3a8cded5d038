//! The yardstick S: moves bytes between two unix sockets by splice(2) through a pipe, a thread per direction.
//!
//! As fast as the kernel moves bytes that nobody looks at. Must never do more.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// The most that anybody may ask for (/proc/sys/fs/pipe-max-size).
const PIPE: i32 = 1 << 20;

/// Serves for ever.
///
/// # Errors
/// The socket cannot be bound.
pub(crate) fn serve(listen: &Path, connect: &Path) -> anyhow::Result<()> {
    for client in UnixListener::bind(listen)?.incoming() {
        let client = client?;
        let upstream = UnixStream::connect(connect)?;
        let back = (upstream.try_clone()?, client.try_clone()?);
        for (from, to) in [(client, upstream), back] {
            thread::spawn(move || {
                // Who goes away ends the stream; the other side is told in any case.
                let _ = carry(&from, &to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    }
    Ok(())
}

fn carry(from: &UnixStream, to: &UnixStream) -> nix::Result<()> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
    let size = usize::try_from(fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE))?).unwrap_or(0);
    loop {
        let mut held = splice(from, None, &writer, None, size, SpliceFFlags::SPLICE_F_MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(&reader, None, to, None, held, SpliceFFlags::SPLICE_F_MOVE)?;
        }
    }
}
