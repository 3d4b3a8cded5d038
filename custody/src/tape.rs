//! One direction of a connection, on record: bytes in shared memory, and how many of them have been moved.
//!
//! A call is made by recvmmsg(2) or sendmmsg(2) with its header in the shared memory, too: the kernel writes the number of
//! bytes into `msg_len` before it returns, and a process can only be killed when it returns to user mode. So bytes that have
//! left the socket's queue, or have entered it, are always counted. There are two headers, used in turns, so that the count
//! of the last call is not lost while the next one is prepared. Must never be used by two processes at once.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::libc;

/// The most that one call takes from a socket.
const GULP: usize = 64 * 1024;

/// What is known of a tape, in shared memory. All zeros is an empty one.
#[repr(C)]
pub(crate) struct Head {
    /// Bytes put here to be sent.
    total: AtomicU64,
    /// Which of the two calls counts.
    active: AtomicU64,
    calls: [Call; 2],
}

/// A call and what was there before it.
#[repr(C)]
struct Call {
    base: AtomicU64,
    part: libc::iovec,
    header: libc::mmsghdr,
}

/// A tape: its head and its bytes.
pub(crate) struct Tape<'m> {
    head: *mut Head,
    area: *mut u8,
    room: usize,
    memory: PhantomData<&'m ()>,
}

impl<'m> Tape<'m> {
    /// The tape at these places of a mapping.
    ///
    /// # Safety
    /// `head` is aligned, both places are within the mapping for as long as `'m`, and no other tape, thread or process uses
    /// them at the same time.
    pub(crate) unsafe fn new(head: *mut Head, area: *mut u8, room: usize) -> Tape<'m> {
        Tape { head, area, room, memory: PhantomData }
    }

    fn head(&self) -> &Head {
        // SAFETY: see `new`; what changes behind our back is atomic, or read by `volatile`.
        unsafe { &*self.head }
    }

    fn call(&self, number: u64) -> *mut Call {
        // SAFETY: of two calls, number is 0 or 1.
        unsafe { (&raw mut (*self.head).calls).cast::<Call>().add((number & 1) as usize) }
    }

    /// Bytes that have been moved.
    pub(crate) fn done(&self) -> usize {
        let call = self.call(self.head().active.load(SeqCst));
        // SAFETY: `call` is within the head; the kernel wrote `msg_len` before the call returned.
        let (base, len) =
            unsafe { ((*call).base.load(SeqCst), (&raw const (*call).header.msg_len).read_volatile()) };
        usize::try_from(base).unwrap_or(0).saturating_add(len as usize).min(self.room)
    }

    /// Bytes put here.
    pub(crate) fn total(&self) -> usize {
        usize::try_from(self.head().total.load(SeqCst)).unwrap_or(0).min(self.room)
    }

    /// The bytes from one place to another.
    pub(crate) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        let to = to.min(self.room);
        let from = from.min(to);
        // SAFETY: within the area; only we write to it, and not while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.area.add(from), to - from) }
    }

    /// Makes it empty. Only while what it held does not count.
    pub(crate) fn clear(&self) {
        self.set_done(0);
        self.head().total.store(0, SeqCst);
    }

    /// Counts so many bytes as moved.
    fn set_done(&self, done: usize) {
        self.prepare(done, 0);
    }

    /// Makes the other call the one that counts: nothing moved yet behind `base`.
    fn prepare(&self, base: usize, len: usize) -> *mut libc::mmsghdr {
        let next = self.head().active.load(SeqCst) ^ 1;
        let call = self.call(next);
        // SAFETY: `call` is within the head, and none but us uses it; plain data of the C library may be all zeros.
        let header = unsafe {
            (*call).base.store(base as u64, SeqCst);
            (*call).part = libc::iovec { iov_base: self.area.add(base).cast(), iov_len: len };
            (*call).header = std::mem::zeroed();
            (*call).header.msg_hdr.msg_iov = &raw mut (*call).part;
            (*call).header.msg_hdr.msg_iovlen = 1;
            &raw mut (*call).header
        };
        self.head().active.store(next, SeqCst);
        header
    }

    /// Takes what a socket has, and says whether it has no more. Nothing at the end of its stream.
    ///
    /// # Errors
    /// What the kernel says; `FileTooLarge` when there is no room.
    pub(crate) fn receive(&self, socket: BorrowedFd<'_>) -> io::Result<(&[u8], bool)> {
        let done = self.done();
        let len = (self.room - done).min(GULP);
        if len == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let header = self.prepare(done, len);
        // SAFETY: header, part and area are within the mapping, and the kernel writes no further than `len`.
        let got = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), header, 1, libc::MSG_DONTWAIT as _, std::ptr::null_mut())
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let bytes = self.bytes(done, self.done());
        // SAFETY: `header` is within the mapping, and the kernel has written it.
        let flags = unsafe { (&raw const (*header).msg_hdr.msg_flags).read_volatile() };
        // Descriptors in a stream of bytes end a call early, and so does the end of the stream.
        let drained = !bytes.is_empty() && bytes.len() < len && flags & libc::MSG_CTRUNC == 0;
        Ok((bytes, drained))
    }

    /// Adds bytes that have been received by another way.
    ///
    /// # Errors
    /// `FileTooLarge` when there is no room.
    pub(crate) fn add_received(&self, bytes: &[u8]) -> io::Result<()> {
        let done = self.done();
        self.write(done, bytes)?;
        self.set_done(done + bytes.len());
        Ok(())
    }

    /// Adds bytes to be sent.
    ///
    /// # Errors
    /// `FileTooLarge` when there is no room.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<()> {
        let total = self.total();
        self.write(total, bytes)?;
        self.head().total.store((total + bytes.len()) as u64, SeqCst);
        Ok(())
    }

    /// Adds bytes to be sent, the first `done` of which have been.
    pub(crate) fn put_sent(&self, bytes: &[u8], done: usize) -> io::Result<()> {
        self.put(bytes)?;
        self.set_done(done.min(bytes.len()));
        Ok(())
    }

    fn write(&self, at: usize, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.room - at {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        // SAFETY: within the area, which none but us uses, and which no borrowed bytes overlap: they end before `at`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.area.add(at), bytes.len()) };
        Ok(())
    }

    /// Sends what a socket takes now. Whether all has been sent.
    ///
    /// # Errors
    /// What the kernel says: `WouldBlock` when the socket takes nothing now.
    pub(crate) fn send(&self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let (done, total) = (self.done(), self.total());
        if done >= total {
            return Ok(true);
        }
        let header = self.prepare(done, total - done);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: header, part and area are within the mapping; the kernel reads no further than `total`.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), header, 1, flags as _) };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.done() >= total)
    }
}
