//! Asks a DNS server for random names of `serve` as fast as it answers, and reports the CPU time that this cost the
//! server.
//!
//! `load ADDRESS:PORT PROCESS NAMES QUERIES [OUTSTANDING [A|AAAA]]` prints one line: microseconds of CPU (user and system, of
//! the process PROCESS) per answer, answers per second, and how many got none. It must never be aimed at a server that
//! is not the developer's own.

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

type Failure = Box<dyn std::error::Error>;

/// The most messages per call.
const BATCH: usize = 32;

/// A query for the addresses of `hN.bench.selvedge.internal`, of type `kind`.
fn query(id: u16, number: u32, kind: u8) -> Vec<u8> {
    let label = format!("h{number}");
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    for label in [label.as_str(), "bench", "selvedge", "internal"] {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, kind, 0, 1]);
    bytes
}

fn send(socket: &UdpSocket, queries: &[Vec<u8>]) -> Result<(), Failure> {
    let slices: Vec<[IoSlice<'_>; 1]> = queries.iter().map(|query| [IoSlice::new(query)]).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(slices.len(), None);
    let addresses = vec![None; slices.len()];
    sendmmsg(socket.as_raw_fd(), &mut headers, &slices, addresses, [], MsgFlags::empty())?;
    Ok(())
}

/// How many answers arrived, and how many of them were an address.
fn receive(socket: &UdpSocket, buffers: &mut [[u8; 512]]) -> Result<(usize, usize), Failure> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(buffers.len(), None);
    let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None);
    let lengths: Vec<usize> = match received {
        Ok(received) => received.map(|message| message.bytes).collect(),
        Err(Errno::EAGAIN) => vec![],
        Err(error) => return Err(error.into()),
    };
    let good =
        lengths.iter().zip(buffers.iter()).filter(|(length, bytes)| **length > 40 && bytes[7] == 1).count();
    Ok((lengths.len(), good))
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, process, names, queries, rest @ ..] = &arguments[..] else {
        return Err("usage: load ADDRESS:PORT PROCESS NAMES QUERIES [OUTSTANDING [A|AAAA]]".into());
    };
    let (names, queries): (u32, usize) = (names.parse()?, queries.parse()?);
    let outstanding: usize = rest.first().map_or(Ok(64), |text| text.parse())?;
    let kind = match rest.get(1).map_or("A", String::as_str) {
        "A" => 1,
        "AAAA" => 28,
        other => return Err(format!("not an address type: {other}").into()),
    };
    let clock = clock_getcpuclockid(Pid::from_raw(process.parse()?))?;
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut buffers = [[0; 512]; BATCH];
    let (mut asked, mut in_flight, mut answered, mut good, mut lost) = (0, 0, 0, 0, 0);
    let mut random = 0x9e37_79b9_u32;
    let (start, cpu) = (Instant::now(), Duration::from(clock_gettime(clock)?));
    while answered + lost < queries {
        let more = (outstanding - in_flight).min(BATCH).min(queries - asked);
        let batch: Vec<Vec<u8>> = (0..more)
            .map(|place| {
                // xorshift: random names, but the same ones in each run.
                random ^= random << 13;
                random ^= random >> 17;
                random ^= random << 5;
                query((asked + place) as u16, random % names, kind)
            })
            .collect();
        if !batch.is_empty() {
            send(&socket, &batch)?;
        }
        asked += more;
        in_flight += more;
        let (count, with_address) = receive(&socket, &mut buffers)?;
        answered += count;
        good += with_address;
        in_flight = if count == 0 { 0 } else { in_flight.saturating_sub(count) };
        lost = if count == 0 { asked - answered } else { lost };
    }
    let (took, cpu) = (start.elapsed(), Duration::from(clock_gettime(clock)?) - cpu);
    println!(
        "{:.3} us CPU per answer, {:.0} answers/s, {lost} lost, {} wrong",
        cpu.as_secs_f64() * 1e6 / answered as f64,
        answered as f64 / took.as_secs_f64(),
        answered - good
    );
    Ok(())
}
