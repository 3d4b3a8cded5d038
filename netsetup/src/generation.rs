//! The number that the kernel gives to each state of a network namespace's rules (NFT_MSG_GETGEN): one cheap question
//! tells whether any rules have changed. It must never change a rule.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

use crate::error::{Error, Failure};

/// linux/netfilter/nfnetlink.h: NFNL_SUBSYS_NFTABLES, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
/// linux/netfilter/nf_tables.h.
const GETGEN: u16 = 16;
const NEWGEN: u16 = 15;
/// NFTA_GEN_ID, a number in network byte order.
const GEN_ID: u16 = 1;
/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
/// The netlink header, and the netfilter header after it.
const HEADERS: usize = 16 + 4;

/// The current generation of the rules in this thread's network namespace.
///
/// # Errors
/// The kernel does not answer.
pub(crate) fn now() -> Result<u32, Error> {
    ask().map_err(|error| Failure::new("ask the kernel for the state of its rules", &error).of_host())
}

/// A socket to the kernel's netfilter, in this thread's network namespace.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?)
}

fn ask() -> io::Result<u32> {
    let netlink = open()?;
    let mut message = Vec::with_capacity(HEADERS);
    message.extend_from_slice(&(HEADERS as u32).to_ne_bytes());
    message.extend_from_slice(&(SUBSYSTEM | GETGEN).to_ne_bytes());
    message.extend_from_slice(&REQUEST.to_ne_bytes());
    message.resize(HEADERS, 0);
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.get(..length).and_then(read).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(answer: &[u8]) -> Option<u32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let mut attributes = answer.get(HEADERS..).filter(|_| kind == SUBSYSTEM | NEWGEN)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == GEN_ID {
            return Some(u32::from_be_bytes(attributes.get(4..8)?.try_into().ok()?));
        }
        // Attributes begin at multiples of four bytes.
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}
