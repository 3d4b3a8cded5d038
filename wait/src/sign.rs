//! The sign for which the program waits: the pool's route in the main table of this network namespace, marked with
//! our own protocol number. Kernel state, so that any worker can finish what another one began.
//!
//! Listens on rtnetlink; where a seccomp profile refuses that, looks at /proc/net/route from time to time, and where it
//! refuses that too, into the mailbox. A refused call may also look as if it had succeeded, so only what the kernel really
//! said counts.
//! Must never take another route for the sign: Docker writes routes into the same table.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use crate::stop::StopSignals;
use crate::{mailbox, syscall};

/// rtm_protocol of the sign. Numbers above 4 (RTPROT_STATIC) are free for daemons; iproute2's rt_protos names no 83.
/// `selvedge-netsetup` has the same constant.
const PROTOCOL: u8 = 83;
/// The container's end of the wire, for the fallback, which cannot see protocol numbers.
const INTERFACE: &[u8] = b"selvedge0\t";

const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLMSG_ERROR: u16 = 2;
/// NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH.
const DUMP_REQUEST: u16 = 0x1 | 0x100 | 0x200;
const AF_INET: u8 = 2;
const RT_TABLE_MAIN: u8 = 254;
const RTN_UNICAST: u8 = 1;
/// struct nlmsghdr, then struct rtmsg.
const HEADER_BYTES: usize = 16;
const ROUTE_BYTES: usize = 12;
/// The kernel fills at most this much into one datagram of a dump (NLMSG_GOODSIZE).
const DATAGRAM_BYTES: usize = 8192;

/// How long to listen before asking for a dump again, at first and at last: the subscription may be none.
const LISTEN_FIRST_MILLISECONDS: u32 = 20;
const LISTEN_LAST_MILLISECONDS: u32 = 640;
const POLL_FIRST_MILLISECONDS: u32 = 2;
const POLL_LAST_MILLISECONDS: u32 = 50;

/// What one look at the socket gave.
enum News {
    /// The sign is there.
    Sign,
    /// Other things only.
    Other,
    /// Nothing yet.
    Nothing,
    /// The kernel dropped messages: only another dump can tell.
    Lost,
    /// Netlink does not work for us.
    Refused,
}

/// Waits for the sign. A signal that ends the wait is given back.
pub(crate) fn wait(signals: &StopSignals) -> Option<u8> {
    match (subscribe(), signals.descriptor()) {
        (Some(socket), Some(stopped)) => match listen(&socket, &stopped, signals) {
            Outcome::Sign => None,
            Outcome::Stopped(signal) => Some(signal),
            Outcome::Refused => look_again_and_again(signals),
        },
        _ => look_again_and_again(signals),
    }
}

enum Outcome {
    Sign,
    Stopped(u8),
    Refused,
}

/// First the subscription, then the dump: a route that comes in between is seen twice, never missed.
fn subscribe() -> Option<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        // NETLINK_ROUTE is protocol 0, which rustix spells as none.
        None,
    );
    let socket = syscall::opened(socket.ok()?)?;
    bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_IPV4_ROUTE)).ok()?;
    ask_for_dump(&socket).ok()?;
    Some(socket)
}

fn ask_for_dump(socket: &OwnedFd) -> Result<(), Errno> {
    let mut request = [0_u8; HEADER_BYTES + ROUTE_BYTES];
    request[0] = (HEADER_BYTES + ROUTE_BYTES) as u8;
    request[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP_REQUEST.to_ne_bytes());
    request[HEADER_BYTES] = AF_INET;
    send(socket, &request, SendFlags::empty()).map(|_sent| ())
}

fn listen(socket: &OwnedFd, stopped: &OwnedFd, signals: &StopSignals) -> Outcome {
    let (mut lost, mut pause) = (false, LISTEN_FIRST_MILLISECONDS);
    loop {
        let mut events = [PollFd::new(socket, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(pause) * 1_000_000 };
        let quiet = match poll(&mut events, Some(&limit)) {
            Ok(ready) => ready == 0,
            Err(Errno::INTR) => false,
            Err(_) => return Outcome::Refused,
        };
        if let Some(signal) = signals.pending() {
            return Outcome::Stopped(signal);
        }
        match receive(socket) {
            News::Sign => return Outcome::Sign,
            News::Refused => return Outcome::Refused,
            News::Lost => (lost, pause) = (true, LISTEN_FIRST_MILLISECONDS),
            // The kernel has something for us, and we are not let have it.
            News::Nothing if events[0].revents().contains(PollFlags::IN) => return Outcome::Refused,
            // After a loss the socket must first be quiet: a dump that still runs would answer EBUSY to another.
            News::Nothing if lost => lost = ask_for_dump(socket).is_err(),
            News::Nothing if quiet => {
                pause = (pause * 2).min(LISTEN_LAST_MILLISECONDS);
                let _not_yet = ask_for_dump(socket);
            }
            News::Nothing | News::Other => {}
        }
        if mailbox::is_gate_open() {
            return Outcome::Sign;
        }
    }
}

fn receive(socket: &OwnedFd) -> News {
    let mut buffer = [0; DATAGRAM_BYTES];
    let mut heard = News::Nothing;
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::empty()) {
            // Netlink has no empty datagrams.
            Ok((0, _)) => return News::Refused,
            Ok((length, _)) => match read_datagram(buffer.get(..length).unwrap_or_default()) {
                News::Nothing => heard = News::Other,
                news => return news,
            },
            Err(Errno::AGAIN) => return heard,
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => return News::Lost,
            Err(_) => return News::Refused,
        }
    }
}

fn read_datagram(mut datagram: &[u8]) -> News {
    while let (Some(length), Some(kind)) = (datagram.first_chunk::<4>(), datagram.get(4..6)) {
        let length = u32::from_ne_bytes(*length) as usize;
        let Some(body) = datagram.get(HEADER_BYTES..length) else { return News::Nothing };
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        if kind == RTM_NEWROUTE && is_sign(body) {
            return News::Sign;
        }
        if kind == NLMSG_ERROR {
            return News::Refused;
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    News::Nothing
}

/// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
fn is_sign(route: &[u8]) -> bool {
    matches!(route, [AF_INET, _, _, _, RT_TABLE_MAIN, PROTOCOL, _, RTN_UNICAST, ..])
}

fn look_again_and_again(signals: &StopSignals) -> Option<u8> {
    let mut pause = POLL_FIRST_MILLISECONDS;
    while !(mailbox::is_gate_open() || table_has_sign()) {
        if let Some(signal) = signals.sleep(pause) {
            return Some(signal);
        }
        pause = (pause * 2).min(POLL_LAST_MILLISECONDS);
    }
    None
}

/// Whether /proc/net/route has a route over our interface through a gateway. The sign is the only such one, and comes last.
fn table_has_sign() -> bool {
    use rustix::fs::{Mode, OFlags, open};
    let opened = open(c"/proc/net/route", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    let Some(file) = opened.and_then(syscall::opened) else { return false };
    let mut table = [0; 2 * DATAGRAM_BYTES];
    let mut filled = 0;
    while let Some(space) = table.get_mut(filled..).filter(|space| !space.is_empty()) {
        match rustix::io::read(&file, space) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    table.get(..filled).unwrap_or_default().split(|byte| *byte == b'\n').any(is_gateway_line)
}

/// A line is `interface TAB destination TAB gateway TAB ...`, both addresses as eight hexadecimal digits.
fn is_gateway_line(line: &[u8]) -> bool {
    let fields = line.strip_prefix(INTERFACE).and_then(|rest| rest.get(9..17));
    fields.is_some_and(|gateway| gateway != b"00000000")
}
