//! The sign: a route in our network namespace whose protocol number is Selvedge's. It is kernel state, so any
//! worker can set it, whoever began; and the last thing to be set, so all else is there (rtnetlink(7)).

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};

use crate::{signals, sys};

/// `rtm_protocol` of the sign. Numbers from 5 on are for user space (linux/rtnetlink.h), and this one is not
/// among those that iproute2's rt_protos assigns.
const SELVEDGE_PROTOCOL: u8 = 83;

const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
const AF_INET: u8 = 2;
// struct nlmsghdr, then struct rtmsg, of which rtm_protocol is the sixth byte.
const HEADER: usize = 16;
const PROTOCOL_AT: usize = HEADER + 5;

/// Waits for the sign. A signal that ends processes ends this one too.
pub(crate) fn wait_for_sign(signals: &signals::Descriptor) {
    match subscribe() {
        Ok(socket) => listen(&socket, signals),
        // A strict seccomp profile may allow no netlink at all.
        Err(_) => watch_file(signals),
    }
}

fn subscribe() -> Result<OwnedFd, Errno> {
    // NETLINK_ROUTE is protocol 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // First the news, then the question how it is: in this order nothing is missed.
    bind(&socket, &SocketAddrNetlink::new(0, RTMGRP_IPV4_ROUTE))?;
    ask(&socket)?;
    Ok(socket)
}

fn ask(socket: &OwnedFd) -> Result<(), Errno> {
    let mut request = [0; HEADER + 12];
    request[0] = (HEADER + 12) as u8;
    request[4..6].copy_from_slice(&RTM_GETROUTE.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request[HEADER] = AF_INET;
    send(socket, &request, SendFlags::empty()).map(drop)
}

fn listen(socket: &OwnedFd, signals: &signals::Descriptor) {
    let mut buffer = [0; 16 * 1024];
    loop {
        until_readable(socket, signals);
        match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
            Ok((read, _)) if has_sign(&buffer[..read]) => return,
            // More news than the socket holds: the question again.
            Err(Errno::NOBUFS) => drop(ask(socket)),
            _ => {}
        }
    }
}

fn until_readable(socket: &OwnedFd, signals: &signals::Descriptor) {
    let signal = signals.borrow();
    let mut fds = [
        PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(signal.unwrap_or(socket.as_fd()), PollFlags::IN),
    ];
    let _ = poll(&mut fds, None);
    if signal.is_some() && !fds[1].revents().is_empty() {
        sys::exit(signals.exit_code());
    }
}

fn has_sign(mut messages: &[u8]) -> bool {
    while messages.len() >= HEADER {
        let len = u32::from_ne_bytes([messages[0], messages[1], messages[2], messages[3]]) as usize;
        let kind = u16::from_ne_bytes([messages[4], messages[5]]);
        if kind == RTM_NEWROUTE && messages.get(PROTOCOL_AT) == Some(&SELVEDGE_PROTOCOL) {
            return true;
        }
        // Messages are laid down at multiples of four.
        let next = (len.max(HEADER) + 3) & !3;
        messages = messages.get(next..).unwrap_or(&[]);
    }
    false
}

/// Without netlink: a route by way of a gateway on our interface is the sign, and /proc/net/route shows it.
fn watch_file(signals: &signals::Descriptor) {
    let mut pause = 2_000_000;
    while !file_has_sign() {
        let timeout = Timespec { tv_sec: 0, tv_nsec: pause };
        let signal = signals.borrow();
        let mut fds = signal.map(|fd| [PollFd::from_borrowed_fd(fd, PollFlags::IN)]);
        let ready = poll(fds.as_mut().map_or(&mut [], |fds| &mut fds[..]), Some(&timeout));
        if matches!(ready, Ok(n) if n > 0) {
            sys::exit(signals.exit_code());
        }
        pause = (pause * 5 / 4).min(50_000_000);
    }
}

fn file_has_sign() -> bool {
    let Ok(file) = rustix::fs::open(c"/proc/net/route", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    else {
        return false;
    };
    let mut buffer = [0; 4096];
    let read = rustix::io::read(&file, &mut buffer[..]).unwrap_or(0);
    // Iface, destination, gateway, flags, ... by tabs.
    buffer[..read].split(|byte| *byte == b'\n').any(|line| {
        let mut fields = line.split(|byte| *byte == b'\t');
        fields.next() == Some(b"selvedge0") && fields.nth(1).is_some_and(|gateway| gateway != b"00000000")
    })
}
