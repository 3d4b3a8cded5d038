//! Asks a host itself whether it is alive when the registry does not say so: a TCP connection to its keeper's port,
//! which the kernel accepts as long as the keeper runs, whatever its worker does.
//!
//! Must never send a byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How many hosts are probed at once.
pub(crate) const AT_ONCE: usize = 64;

/// A host that has not answered by then is also too slow for the clients of its containers.
const PATIENCE: Duration = Duration::from_millis(700);

/// Whether a connection to that address succeeds.
pub(crate) async fn answers(address: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}

/// How long to wait before probing a host again: briefly, if it counts as alive but is not registered.
pub(crate) fn pause(doubted: bool, cut_off: bool) -> Duration {
    match (doubted, cut_off) {
        (_, true) => Duration::from_secs(3),
        (true, false) => Duration::from_millis(800),
        (false, false) => Duration::from_secs(5),
    }
}
