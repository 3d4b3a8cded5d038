//! The floor of DNS: a UDP loop that answers every query with the same address, without a look at it.
//!
//! Must never parse: what a server costs more than this, it pays for what it knows.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

const BATCH: usize = 32;
/// A pointer to the question's name, A, IN, 60 s, 10.32.0.1.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 32, 0, 1];

/// Serves for ever.
///
/// # Errors
/// The address cannot be bound, or the socket fails.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(address)?;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut replies = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = [[0; 512]; BATCH];
    loop {
        let mut slices: Vec<_> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(&mut buffer[..480])]).collect();
        let received =
            recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None)?;
        let queries: Vec<(usize, Option<SockaddrIn>)> =
            received.map(|message| (message.bytes, message.address)).collect();
        for ((length, _), buffer) in queries.iter().zip(&mut buffers) {
            if *length > 12 {
                buffer[*length..*length + 16].copy_from_slice(&RECORD);
                // An answer, authoritative; one record in it.
                buffer[2] |= 0x84;
                buffer[7] = 1;
            }
        }
        let slices: Vec<[IoSlice<'_>; 1]> = queries
            .iter()
            .zip(&buffers)
            .map(|((length, _), buffer)| [IoSlice::new(&buffer[..length + 16])])
            .collect();
        let addresses: Vec<Option<SockaddrIn>> = queries.iter().map(|(_, address)| *address).collect();
        sendmmsg(socket.as_raw_fd(), &mut replies, &slices, addresses, [], MsgFlags::empty())?;
    }
}
