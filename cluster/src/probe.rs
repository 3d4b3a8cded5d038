//! Asks a host itself whether it lives, when the registry does not say so: a TCP connection to its keeper's port, which
//! the kernel accepts as long as the keeper is there, whatever its worker does.
//!
//! Must never send a byte.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// So many hosts are asked in one go.
pub(crate) const AT_ONCE: usize = 64;

/// A host that has not answered by then is too slow for those who wait for its containers, too.
const PATIENCE: Duration = Duration::from_millis(700);

/// Whether somebody listens there.
pub(crate) async fn answers(address: SocketAddr) -> bool {
    timeout(PATIENCE, TcpStream::connect(address)).await.is_ok_and(|connected| connected.is_ok())
}

/// After which time a host is asked again: soon, if it is taken for alive and not registered.
pub(crate) fn pause(doubted: bool, cut_off: bool) -> Duration {
    match (doubted, cut_off) {
        (_, true) => Duration::from_secs(3),
        (true, false) => Duration::from_millis(800),
        (false, false) => Duration::from_secs(5),
    }
}
