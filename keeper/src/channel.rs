//! Packets on a SOCK_SEQPACKET unix socket: a JSON head, raw bytes, descriptors.
//!
//! A packet is `"SK"`, the format (1), flags, the head's length (u32, little endian), the head, the bytes. Bytes that
//! would not fit into one packet travel in a sealed memfd, passed as the last descriptor.
//!
//! It must never leak a descriptor that came with a bad packet, and never trust a length.

use crate::shared::board::RawPacket;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The largest packet. Well below the default socket buffer (212,992), which limits a packet.
pub(crate) const PACKET_MAX: usize = 64 << 10;
/// The kernel takes at most 253 descriptors in one message (SCM_MAX_FD).
pub(crate) const FDS_MAX: usize = 200;

const MAGIC: [u8; 3] = [b'S', b'K', 1];
const HEADER: usize = 8;
const IN_MEMFD: u8 = 1;
const SCM_MAX_FD: usize = 253;

/// The result of one receive.
#[derive(Debug)]
pub(crate) enum Received<T> {
    /// A packet.
    Packet(Packet<T>),
    /// Bytes that are not a valid packet, with the reason.
    Garbage(String),
    /// The head of one for whose descriptors this process has no room: the kernel closed them.
    Cut(T),
    /// The peer is gone, and everything it sent has been read.
    Closed,
}

/// One packet.
#[derive(Debug)]
pub(crate) struct Packet<T> {
    pub(crate) head: T,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// Sends one packet whole, or nothing.
///
/// # Errors
/// `WouldBlock` if the peer's queue is full.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    head: &T,
    bytes: &[&[u8]],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let (packet, memfd) = encode(head, bytes)?;
    let mut all_fds = fds.to_vec();
    all_fds.extend(memfd.as_ref().map(AsFd::as_fd));
    if all_fds.len() > SCM_MAX_FD {
        return Err(Errno::MSGSIZE.into());
    }
    send_raw(socket, &packet, &all_fds)
}

/// The packet as it is sent, and the memfd for its last descriptor if its bytes are in one.
///
/// # Errors
/// A head that does not fit, or no memory.
pub(crate) fn encode<T: Serialize>(head: &T, bytes: &[&[u8]]) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let head = serde_json::to_vec(head)?;
    let length: usize = bytes.iter().map(|part| part.len()).sum();
    let inline = HEADER + head.len() + length <= PACKET_MAX;
    let memfd = if inline { None } else { Some(to_memfd(bytes)?) };
    if HEADER + head.len() > PACKET_MAX {
        return Err(Errno::MSGSIZE.into());
    }
    let mut packet = Vec::with_capacity(HEADER + head.len() + if inline { length } else { 0 });
    packet.extend_from_slice(&MAGIC);
    packet.push(if inline { 0 } else { IN_MEMFD });
    packet.extend_from_slice(&(head.len() as u32).to_le_bytes());
    packet.extend_from_slice(&head);
    if inline {
        bytes.iter().for_each(|part| packet.extend_from_slice(part));
    }
    Ok((packet, memfd))
}

/// Sends bytes and descriptors as they are.
fn send_raw(socket: BorrowedFd<'_>, packet: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(fds.len()))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::MSGSIZE.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn to_memfd(bytes: &[&[u8]]) -> io::Result<OwnedFd> {
    let mut file =
        File::from(memfd_create("selvedge-bytes", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    for part in bytes {
        file.write_all(part)?;
    }
    // The reader relies on the size staying as it saw it.
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// Receives one packet, if one is waiting. `buffer` has at least `PACKET_MAX` bytes; up to `most` bytes are taken from
/// a memfd.
///
/// # Errors
/// The kernel's error, except for an empty queue.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    most: usize,
) -> io::Result<Option<Received<T>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    // Descriptors that are not taken out of it are closed when it is dropped, even after a truncation.
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(message) => break message,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            // The peer ended with something of ours unread. What it said before is still to be read.
            Err(Errno::CONNRESET) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    let is_cut = message.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC);
    let bytes = &buffer[..message.bytes.min(buffer.len())];
    Ok(Some(understand(socket, RawPacket { bytes, fds, is_cut }, most)))
}

/// Makes sense of what was received on that socket.
pub(crate) fn understand<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    raw: RawPacket<'_>,
    most: usize,
) -> Received<T> {
    if raw.bytes.is_empty() && raw.fds.is_empty() && is_closed(socket) {
        return Received::Closed;
    }
    if raw.is_cut {
        let reason = "it did not fit, or its descriptors did not".to_owned();
        return parse(raw.bytes, raw.fds, most)
            .map_or(Received::Garbage(reason), |packet| Received::Cut(packet.head));
    }
    match parse(raw.bytes, raw.fds, most) {
        Ok(packet) => Received::Packet(packet),
        Err(reason) => Received::Garbage(reason),
    }
}

/// An empty packet and end of file read alike: only poll(2) tells them apart.
fn is_closed(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [rustix::event::PollFd::from_borrowed_fd(socket, rustix::event::PollFlags::RDHUP)];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let over = rustix::event::PollFlags::HUP | rustix::event::PollFlags::RDHUP;
    rustix::event::poll(&mut polled, Some(&now)).is_err() || polled[0].revents().intersects(over)
}

fn parse<T: DeserializeOwned>(
    packet: &[u8],
    mut fds: Vec<OwnedFd>,
    most: usize,
) -> Result<Packet<T>, String> {
    let Some((header, rest)) = packet.split_first_chunk::<HEADER>() else {
        return Err("shorter than a header".to_owned());
    };
    if header[..3] != MAGIC {
        return Err("not a packet of this protocol".to_owned());
    }
    let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let Some((head, bytes)) = rest.split_at_checked(length) else {
        return Err("the head is cut off".to_owned());
    };
    let head = serde_json::from_slice(head).map_err(|error| error.to_string())?;
    let bytes = if header[3] & IN_MEMFD == 0 {
        bytes.to_vec()
    } else {
        let memfd = fds.pop().ok_or("a memfd is missing")?;
        from_memfd(memfd, most).map_err(|error| format!("its memfd: {error}"))?
    };
    Ok(Packet { head, bytes, fds })
}

/// Reads only a sealed memfd: any other file could change its size, or block us.
fn from_memfd(memfd: OwnedFd, most: usize) -> io::Result<Vec<u8>> {
    if !fcntl_get_seals(&memfd)?.contains(SealFlags::SHRINK) {
        return Err(Errno::PERM.into());
    }
    let file = File::from(memfd);
    let length = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from(Errno::FBIG))?;
    if length > most {
        return Err(Errno::FBIG.into());
    }
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// A connected pair, both ends non-blocking and close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests;
