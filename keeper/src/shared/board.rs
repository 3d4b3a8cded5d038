//! The one operation under way, and its result as the kernel writes it.
//!
//! recvmmsg(2) and sendmmsg(2) write the number of bytes into memory before they return, and a kill takes effect only
//! when a call returns. With that number and the bytes in shared memory, a successor knows what was received and sent,
//! whenever its predecessor was killed. It must never be armed for two operations: there is one thread.

use crate::shared::memory::Memory;
use crate::shared::rights;
use crate::shared::slots::Place;
use nix::libc::{self, MSG_CMSG_CLOEXEC, MSG_DONTWAIT, MSG_NOSIGNAL, iovec, mmsghdr};
use rustix::io::Errno;
use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering, compiler_fence};

/// Bytes of one read from a stream.
pub(crate) const STREAM_BUFFER: usize = 64 << 10;
/// Bytes of one packet from a worker.
const PACKET_BUFFER: usize = 64 << 10;
/// Room for the descriptors of one packet (253 at most, and a header).
const CONTROL_BUFFER: usize = 2048;
const MAGIC: u64 = u64::from_le_bytes(*b"SELVEDG1");

/// What an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Received into the buffer, then sent from there.
    Copy(Place),
    /// Held bytes are sent.
    Flush(Place),
    /// That many bytes were in the pipe before some went to the target.
    Drain(Place, usize),
    /// That many bytes were in the pipe before some were read into the buffer.
    Unsplice(Place, usize),
    /// A packet of that worker is received and understood.
    Packet(u32),
    /// The order with that number is sent.
    Order(u64),
}

#[repr(C)]
struct Operation {
    armed: AtomicU64,
    kind: AtomicU32,
    direction: AtomicU32,
    number: AtomicU64,
    held: AtomicU64,
    received: UnsafeCell<mmsghdr>,
    sent: UnsafeCell<mmsghdr>,
}

#[repr(C)]
struct Layout {
    magic: AtomicU64,
    slots: AtomicI32,
    log: AtomicI32,
    over: AtomicU32,
    tries: AtomicU32,
    watcher: AtomicI32,
    keeper: AtomicI32,
    takeovers: AtomicU32,
    operation: Operation,
    control: UnsafeCell<[u64; CONTROL_BUFFER / 8]>,
    stream: UnsafeCell<[u8; STREAM_BUFFER]>,
    packet: UnsafeCell<[u8; PACKET_BUFFER]>,
}

/// The memory with it.
pub(crate) struct Board {
    memory: Memory,
}

/// A packet as it was received.
pub(crate) struct RawPacket<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) fds: Vec<OwnedFd>,
    /// Either did not fit.
    pub(crate) is_cut: bool,
}

impl Board {
    pub(crate) fn new() -> io::Result<Board> {
        let memory = Memory::create("selvedge-board", size_of::<Layout>())?;
        memory.lock();
        let board = Board { memory };
        board.layout().magic.store(MAGIC, Ordering::Relaxed);
        board.layout().keeper.store(std::process::id().cast_signed(), Ordering::Relaxed);
        Ok(board)
    }

    /// What a former image left; none if it is something else.
    pub(crate) fn open(memory: Memory) -> Option<Board> {
        let fits = memory.len() >= size_of::<Layout>();
        let board = fits.then_some(Board { memory })?;
        (board.layout().magic.load(Ordering::Relaxed) == MAGIC).then_some(board)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    fn layout(&self) -> &Layout {
        // SAFETY: the mapping is at least as long and aligned to a page; all fields are atomics or cells, for which any
        // bytes are valid values.
        unsafe { &*self.memory.start().cast::<Layout>() }
    }

    pub(crate) fn name(&self, slots: RawFd, log: RawFd) {
        self.layout().slots.store(slots, Ordering::Relaxed);
        self.layout().log.store(log, Ordering::Release);
    }

    pub(crate) fn rename_log(&self, log: RawFd) {
        compiler_fence(Ordering::SeqCst);
        self.layout().log.store(log, Ordering::Release);
    }

    /// The numbers of the other two memories.
    pub(crate) fn names(&self) -> (RawFd, RawFd) {
        (self.layout().slots.load(Ordering::Acquire), self.layout().log.load(Ordering::Acquire))
    }

    pub(crate) fn set_over(&self) {
        self.layout().over.store(1, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.layout().over.load(Ordering::Acquire) != 0
    }

    /// Counts one more process that takes over from this keeper.
    pub(crate) fn count_takeover(&self) {
        self.layout().takeovers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn takeovers(&self) -> u32 {
        self.layout().takeovers.load(Ordering::Relaxed)
    }

    /// The process that takes over if the one that is taking over dies, too.
    pub(crate) fn set_watcher(&self, pid: i32) {
        self.layout().watcher.store(pid, Ordering::Release);
    }

    /// The process of the keeper that made it.
    pub(crate) fn keeper(&self) -> i32 {
        self.layout().keeper.load(Ordering::Relaxed)
    }

    pub(crate) fn watcher(&self) -> i32 {
        self.layout().watcher.load(Ordering::Acquire)
    }

    /// Says what comes next.
    pub(crate) fn arm(&self, doing: Doing, seq: u64) {
        let operation = &self.layout().operation;
        operation.armed.store(0, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
        let (kind, number, direction, held) = match doing {
            Doing::Copy(place) => (1, u64::from(place.index), place.direction, 0),
            Doing::Flush(place) => (2, u64::from(place.index), place.direction, 0),
            Doing::Drain(place, held) => (3, u64::from(place.index), place.direction, held),
            Doing::Unsplice(place, held) => (4, u64::from(place.index), place.direction, held),
            Doing::Packet(worker) => (5, u64::from(worker), 0, 0),
            Doing::Order(number) => (6, number, 0, 0),
        };
        operation.kind.store(kind, Ordering::Relaxed);
        operation.number.store(number, Ordering::Relaxed);
        operation.direction.store(direction, Ordering::Relaxed);
        operation.held.store(held as u64, Ordering::Relaxed);
        // SAFETY: no call is under way, so the kernel writes neither of them now.
        unsafe {
            (*operation.received.get()).msg_len = 0;
            (*operation.sent.get()).msg_len = 0;
        }
        compiler_fence(Ordering::SeqCst);
        operation.armed.store(seq, Ordering::Release);
    }

    /// What was last armed, and its number.
    pub(crate) fn armed(&self) -> Option<(Doing, u64)> {
        let operation = &self.layout().operation;
        let seq = operation.armed.load(Ordering::Acquire);
        let number = operation.number.load(Ordering::Relaxed);
        let held = operation.held.load(Ordering::Relaxed) as usize;
        let place = Place { index: number as u32, direction: operation.direction.load(Ordering::Relaxed) };
        let doing = match operation.kind.load(Ordering::Relaxed) {
            1 => Doing::Copy(place),
            2 => Doing::Flush(place),
            3 => Doing::Drain(place, held),
            4 => Doing::Unsplice(place, held),
            5 => Doing::Packet(number as u32),
            6 => Doing::Order(number),
            _ => return None,
        };
        (seq > 0).then_some((doing, seq))
    }

    /// How many bytes the armed operation received.
    pub(crate) fn received(&self) -> usize {
        // SAFETY: a word within the mapping; the call that writes it has returned, or its process is gone.
        unsafe { (&raw const (*self.layout().operation.received.get()).msg_len).read_volatile() as usize }
    }

    /// How many bytes the armed operation sent.
    pub(crate) fn sent(&self) -> usize {
        // SAFETY: as above.
        unsafe { (&raw const (*self.layout().operation.sent.get()).msg_len).read_volatile() as usize }
    }

    /// The first bytes of the buffer for streams.
    pub(crate) fn buffer(&self, length: usize) -> &[u8] {
        // SAFETY: within the mapping; it is only written in calls of `receive`, `read_pipe`, by this same thread.
        unsafe { std::slice::from_raw_parts(self.layout().stream.get().cast(), length.min(STREAM_BUFFER)) }
    }

    /// Receives from a stream into the buffer; 0 is its end.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn receive(&self, from: BorrowedFd<'_>, most: usize) -> Result<usize, Errno> {
        let mut part =
            iovec { iov_base: self.layout().stream.get().cast(), iov_len: most.min(STREAM_BUFFER) };
        let header = self.layout().operation.received.get();
        // SAFETY: plain data; the vector outlives the call, the buffer is within the mapping.
        unsafe {
            *header = std::mem::zeroed();
            (*header).msg_hdr.msg_iov = &raw mut part;
            (*header).msg_hdr.msg_iovlen = 1;
        }
        self.receive_one(from, MSG_DONTWAIT)
    }

    /// recvmmsg(2) reports an error of the socket, once, before the bytes that wait in it; recv(2) would report it after
    /// them. So it is called again.
    fn receive_one(&self, from: BorrowedFd<'_>, flags: i32) -> Result<usize, Errno> {
        let mut failed = false;
        loop {
            let header = self.layout().operation.received.get();
            // SAFETY: the header names one vector and at most one control buffer, which the caller has set up.
            let count =
                unsafe { libc::recvmmsg(from.as_raw_fd(), header, 1, flags as _, std::ptr::null_mut()) };
            match (count, Errno::from_io_error(&io::Error::last_os_error())) {
                (1, _) => return Ok(self.received()),
                (_, Some(Errno::INTR)) => {}
                (_, Some(Errno::AGAIN)) => return Err(Errno::AGAIN),
                (_, error) if failed => return Err(error.unwrap_or(Errno::IO)),
                _ => failed = true,
            }
        }
    }

    /// Receives one packet with its descriptors.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn receive_packet(&self, from: BorrowedFd<'_>) -> Result<RawPacket<'_>, Errno> {
        let layout = self.layout();
        let mut part = iovec { iov_base: layout.packet.get().cast(), iov_len: PACKET_BUFFER };
        let header = layout.operation.received.get();
        // SAFETY: plain data; the vector outlives the call, both buffers are within the mapping.
        unsafe {
            *header = std::mem::zeroed();
            (*header).msg_hdr.msg_iov = &raw mut part;
            (*header).msg_hdr.msg_iovlen = 1;
            (*header).msg_hdr.msg_control = layout.control.get().cast();
            (*header).msg_hdr.msg_controllen = CONTROL_BUFFER as _;
        }
        self.receive_one(from, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)?;
        // SAFETY: the kernel has just opened the descriptors that it named for this process alone.
        Ok(unsafe { self.packet() })
    }

    /// The packet that was received last.
    ///
    /// # Safety
    /// Its descriptors must have no other owner: call it once for each packet.
    pub(crate) unsafe fn packet(&self) -> RawPacket<'_> {
        let layout = self.layout();
        // SAFETY: plain data within the mapping, written by a call that has returned.
        let header = unsafe { layout.operation.received.get().read() };
        let length = (header.msg_len as usize).min(PACKET_BUFFER);
        // SAFETY: within the mapping; only the next packet overwrites it, for which nothing else borrows this board.
        let bytes = unsafe { std::slice::from_raw_parts(layout.packet.get().cast::<u8>(), length) };
        // SAFETY: within the mapping, written by the kernel up to that length.
        let control = unsafe { &*layout.control.get() };
        let used = header.msg_hdr.msg_controllen.min(CONTROL_BUFFER);
        let fds = rights::read(control, used);
        let is_cut = header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        RawPacket { bytes, fds, is_cut }
    }

    /// Sends bytes, and descriptors beside them, without SIGPIPE.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn send(
        &self,
        to: BorrowedFd<'_>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<usize, Errno> {
        let mut part = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = rights::write(fds);
        let header = self.layout().operation.sent.get();
        // SAFETY: plain data; the vector, the bytes, which are only read, and the control data outlive the call.
        unsafe {
            *header = std::mem::zeroed();
            (*header).msg_hdr.msg_iov = &raw mut part;
            (*header).msg_hdr.msg_iovlen = 1;
            if !fds.is_empty() {
                (*header).msg_hdr.msg_control = control.as_mut_ptr().cast();
                (*header).msg_hdr.msg_controllen = (control.len() * 8) as _;
            }
        }
        loop {
            // SAFETY: the header was just set up.
            let count =
                unsafe { libc::sendmmsg(to.as_raw_fd(), header, 1, (MSG_DONTWAIT | MSG_NOSIGNAL) as _) };
            match (count, Errno::from_io_error(&io::Error::last_os_error())) {
                (1, _) => return Ok(self.sent()),
                (_, Some(Errno::INTR)) => {}
                (_, error) => return Err(error.unwrap_or(Errno::IO)),
            }
        }
    }

    /// Reads from a pipe into the buffer.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn read_pipe(&self, from: BorrowedFd<'_>) -> Result<usize, Errno> {
        // SAFETY: the buffer is within the mapping, and nothing borrows it now.
        let buffer = unsafe { &mut *self.layout().stream.get() };
        rustix::io::read(from, buffer)
    }

    /// Counts how often a successor began to understand the packet that was under way.
    pub(crate) fn tried(&self) -> u32 {
        self.layout().tries.fetch_add(1, Ordering::Relaxed)
    }
}
