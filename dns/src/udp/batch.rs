//! recvmmsg(2) and sendmmsg(2) over buffers that are allocated once. The only unsafe code of this crate: it must never
//! hand the kernel a pointer that outlives the call.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;

use nix::libc;

/// How many datagrams one call takes.
pub(crate) const BATCH: usize = 32;
const LEAST_WIDTH: usize = 4;
/// Longer queries are cut off and answered with FORMERR: we advertise 1232 to clients.
const QUERY_SIZE: usize = 1536;

/// The buffers of a socket's reader.
pub(crate) struct Batch {
    messages: Vec<[u8; QUERY_SIZE]>,
    lengths: Vec<usize>,
    peers: Vec<libc::sockaddr_storage>,
    peer_lengths: Vec<libc::socklen_t>,
    replies: Vec<Vec<u8>>,
    /// How many datagrams the next call is prepared for: twice as many as the last one returned, as preparing for many
    /// is a waste while they arrive one at a time.
    width: usize,
}

/// The result of a call to read.
#[derive(Clone, Copy)]
pub(crate) struct Received {
    pub(crate) count: usize,
    /// The kernel found the socket empty: only then does it return fewer than asked for.
    pub(crate) drained: bool,
}

/// The result of sending the answers.
pub(crate) enum Sent {
    /// Nothing is left to send; the kernel refused this many.
    All { lost: u64 },
    /// This many are left, as the socket's buffer is full.
    Full { left: u64 },
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            messages: vec![[0; QUERY_SIZE]; BATCH],
            lengths: vec![0; BATCH],
            peers: vec![empty_address(); BATCH],
            peer_lengths: vec![0; BATCH],
            replies: (0..BATCH).map(|_| Vec::with_capacity(512)).collect(),
            width: LEAST_WIDTH,
        }
    }

    /// Reads what is available, without waiting: at most [`BATCH`] datagrams.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, and any other error of the kernel.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<Received> {
        let mut vectors = [const { MaybeUninit::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::uninit() }; BATCH];
        let width = self.width.min(BATCH);
        for place in 0..width {
            let base = self.messages[place].as_mut_ptr().cast();
            let vector = vectors[place].write(libc::iovec { iov_base: base, iov_len: QUERY_SIZE });
            let header: &mut libc::mmsghdr = headers[place].write(EMPTY_HEADER);
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.peers[place]).cast();
            header.msg_hdr.msg_namelen = ADDRESS_SIZE;
        }
        // SAFETY: the first `width` headers are written, and point to vectors, buffers and addresses that live until
        // the end of this function, are not touched while the call runs, and have the stated lengths.
        let count = unsafe {
            let (first, flags) = (headers.as_mut_ptr().cast(), libc::MSG_DONTWAIT);
            libc::recvmmsg(socket.as_raw_fd(), first, width as u32, flags, ptr::null_mut())
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (place, header) in headers.iter().enumerate().take(count.min(width)) {
            // SAFETY: `count` is at most `width`, and that many headers are written.
            let header = unsafe { header.assume_init_ref() };
            self.lengths[place] = (header.msg_len as usize).min(QUERY_SIZE);
            self.peer_lengths[place] = header.msg_hdr.msg_namelen;
            self.replies[place].clear();
        }
        self.width = (2 * count).clamp(LEAST_WIDTH, BATCH);
        Ok(Received { count, drained: count < width })
    }

    /// A message that was read, its sender, and the empty buffer for its answer.
    pub(crate) fn query(&mut self, place: usize) -> Option<(&[u8], SocketAddr, &mut Vec<u8>)> {
        let message = self.messages.get(place)?.get(..*self.lengths.get(place)?)?;
        let peer = to_socket_addr(self.peers.get(place)?)?;
        Some((message, peer, self.replies.get_mut(place)?))
    }

    /// The answers to those of the first `count` messages that have one.
    pub(crate) fn replies(&mut self, count: usize) -> Replies<'_> {
        Replies { batch: self, next: 0, end: count, lost: 0 }
    }
}

/// Answers on their way out.
pub(crate) struct Replies<'b> {
    batch: &'b mut Batch,
    next: usize,
    end: usize,
    lost: u64,
}

impl Replies<'_> {
    /// Sends what the kernel accepts without waiting.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> Sent {
        while self.next < self.end {
            match self.send_some(socket) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = self.batch.replies[self.next..self.end].iter();
                    return Sent::Full { left: left.filter(|reply| !reply.is_empty()).count() as u64 };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // sendmmsg returns an error only for the first datagram: skip that one. A firewall may have refused
                    // it (EPERM), or the asker's route may be gone.
                    tracing::debug!(%error, "sending a DNS answer");
                    self.lost += 1;
                    self.next = self.first_with_reply() + 1;
                }
            }
        }
        Sent::All { lost: self.lost }
    }

    fn first_with_reply(&self) -> usize {
        (self.next..self.end).find(|place| !self.batch.replies[*place].is_empty()).unwrap_or(self.end)
    }

    fn send_some(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut vectors = [const { MaybeUninit::uninit() }; BATCH];
        let mut headers = [const { MaybeUninit::uninit() }; BATCH];
        let mut places = [0; BATCH];
        let mut count = 0;
        for place in self.next..self.end {
            let reply = &mut self.batch.replies[place];
            if reply.is_empty() {
                continue;
            }
            let base = reply.as_mut_ptr().cast();
            let vector = vectors[count].write(libc::iovec { iov_base: base, iov_len: reply.len() });
            let header: &mut libc::mmsghdr = headers[count].write(EMPTY_HEADER);
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(&mut self.batch.peers[place]).cast();
            header.msg_hdr.msg_namelen = self.batch.peer_lengths[place];
            places[count] = place;
            count += 1;
        }
        if count == 0 {
            self.next = self.end;
            return Ok(());
        }
        // SAFETY: the first `count` headers are written, and point to vectors, buffers and addresses that live until
        // the end of this function and have the stated lengths; the kernel only reads them.
        let sent = unsafe {
            let first = headers.as_mut_ptr().cast();
            libc::sendmmsg(socket.as_raw_fd(), first, count as u32, libc::MSG_DONTWAIT)
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        self.next = if sent == count { self.end } else { places[sent] };
        Ok(())
    }
}

/// Sends one datagram, without waiting.
///
/// # Errors
/// `WouldBlock` when the socket's buffer is full, and any other error of the kernel.
pub(crate) fn send_one(socket: &UdpSocket, message: &[u8], peer: SocketAddr) -> io::Result<()> {
    use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
    let peer = SockaddrStorage::from(peer);
    sendto(socket.as_raw_fd(), message, &peer, MsgFlags::MSG_DONTWAIT)?;
    Ok(())
}

const ADDRESS_SIZE: libc::socklen_t = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
// SAFETY: all fields of a mmsghdr are numbers and pointers, for which zero is valid ("none").
const EMPTY_HEADER: libc::mmsghdr = unsafe { std::mem::zeroed() };

fn empty_address() -> libc::sockaddr_storage {
    // SAFETY: all fields are numbers, and a family of zero is AF_UNSPEC.
    unsafe { std::mem::zeroed() }
}

fn to_socket_addr(address: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: a sockaddr_storage is as large and as aligned as each kind of address, and its family says that
            // the kernel has written this kind.
            let v4: &libc::sockaddr_in = unsafe { &*ptr::from_ref(address).cast() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6: &libc::sockaddr_in6 = unsafe { &*ptr::from_ref(address).cast() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}
