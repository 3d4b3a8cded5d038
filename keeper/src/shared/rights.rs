//! Descriptors in the control data of a message, as the kernel lays them out (cmsg(3)). It must never own a number that is
//! not open.

use nix::libc;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The length of a control message's header.
const CMSG: usize = size_of::<libc::cmsghdr>();

/// One SCM_RIGHTS message with these descriptors, in whole words.
pub(crate) fn write(fds: &[BorrowedFd<'_>]) -> Vec<u64> {
    if fds.is_empty() {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(CMSG + 4 * fds.len() + 4);
    bytes.extend_from_slice(&(CMSG + 4 * fds.len()).to_ne_bytes());
    bytes.extend_from_slice(&libc::SOL_SOCKET.to_ne_bytes());
    bytes.extend_from_slice(&libc::SCM_RIGHTS.to_ne_bytes());
    for fd in fds {
        bytes.extend_from_slice(&fd.as_raw_fd().to_ne_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let word = |chunk: &[u8]| chunk.try_into().map_or(0, u64::from_ne_bytes);
    bytes.chunks_exact(8).map(word).collect()
}

/// The descriptors in received control data.
pub(crate) fn read(control: &[u64], used: usize) -> Vec<OwnedFd> {
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).take(used).collect();
    let (mut at, mut found) = (0, Vec::new());
    let int = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(i32::from_ne_bytes);
    while let Some(length) = bytes.get(at..at + size_of::<usize>()) {
        let length = length.try_into().map_or(0, usize::from_ne_bytes);
        if length < CMSG {
            break;
        }
        let level = int(at + size_of::<usize>());
        let kind = int(at + size_of::<usize>() + 4);
        if (level, kind) == (Some(libc::SOL_SOCKET), Some(libc::SCM_RIGHTS)) {
            found.extend((at + CMSG..at + length).step_by(4).filter_map(&int).filter_map(own));
        }
        at += length.next_multiple_of(size_of::<usize>());
    }
    found
}

/// Takes a descriptor, if it is open: a keeper that was killed may have closed it already.
fn own(number: RawFd) -> Option<OwnedFd> {
    if number < 3 {
        return None;
    }
    // SAFETY: only borrowed to see whether it is open, which is safe for any number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC).ok()?;
    // SAFETY: it is open, and came with a packet whose descriptors have no other owner (see `Board::packet`).
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
