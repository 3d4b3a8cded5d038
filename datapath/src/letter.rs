//! Letters between hosts: a text over TCP to the port on which they probe each other, to its end, and perhaps an answer.
//!
//! Must never be taken from a host that is not known. What a letter means is not known here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use selvedge_cluster::view::{PeerView, View};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long reading a letter may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest.
const BYTES: u64 = 64 * 1024;

/// A connection from our own address, by which the peer recognises us.
pub(crate) async fn connect(own: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if own.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(own, 0))?;
    }
    socket.connect(to).await
}

/// Sends a letter, to its end; an answer can still be read.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads a letter to its end; most connections are probes and bring an empty one.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut text = String::new();
    let mut limited = stream.take(BYTES);
    timeout(PATIENCE, limited.read_to_string(&mut text)).await.ok()?.ok()?;
    Some(text)
}

/// The host that has this address.
pub(crate) fn sender(view: &View, from: IpAddr) -> Option<PeerView> {
    let is_it = |peer: &&PeerView| peer.info.as_ref().is_some_and(|info| info.address == from.to_canonical());
    view.peers.iter().find(is_it).cloned()
}
