//! Load of DNS queries for random names, and what it costs the server. Must only ever be aimed at a server of our own.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};

use crate::process::cpu;

/// Queries per system call, at most.
const BATCH: usize = 32;
/// Queries that wait for an answer, at most: fewer than a socket's buffer holds.
const OUTSTANDING: usize = 64;
/// Different queries that are asked over and over, in a random order of names.
const QUERIES: usize = 8192;

/// What one turn of load gave.
#[derive(Debug)]
pub(crate) struct Turn {
    /// Answers with an address, per second.
    pub(crate) rate: f64,
    /// Of the server, microseconds per answer.
    pub(crate) cpu: f64,
}

/// The name with this number.
pub(crate) fn name(number: u32) -> String {
    format!("h{number}.bench.selvedge.internal")
}

/// Queries for `count` names.
pub(crate) fn queries(count: u32) -> Vec<Vec<u8>> {
    let mut random = 0x9e37_79b9_u32;
    let next = |place: usize| {
        // xorshift: any name, but the same ones for each server.
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        query(u16::try_from(place).unwrap_or(0), &name(random % count))
    };
    (0..QUERIES).map(next).collect()
}

/// A query for the address of a name, recursion desired.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Whether a server answers this query with an address.
pub(crate) fn answers(server: SocketAddr, query: &[u8]) -> bool {
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.send(query)?;
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer)?;
        Ok(is_address(&buffer[..length]))
    };
    ask().unwrap_or(false)
}

fn is_address(answer: &[u8]) -> bool {
    answer.len() > 28 && answer[7] >= 1
}

/// Asks for so many seconds as fast as answers come.
///
/// # Errors
/// Answers are wrong, or many are missing.
pub(crate) fn turn(server: SocketAddr, pid: u32, queries: &[Vec<u8>], seconds: f64) -> anyhow::Result<Turn> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut load = Load { socket, at: 0, in_flight: 0, answered: 0, good: 0, lost: 0 };
    let (before, began) = (cpu(&[pid])?, Instant::now());
    let end = began + Duration::from_secs_f64(seconds);
    load.run(queries, end)?;
    let (spent, took) = (cpu(&[pid])? - before, began.elapsed().as_secs_f64());
    ensure!(
        load.good == load.answered,
        "{} of {} answers are wrong",
        load.answered - load.good,
        load.answered
    );
    ensure!(load.lost * 100 <= load.answered, "{} answers are missing of {}", load.lost, load.answered);
    let count = load.answered as f64;
    Ok(Turn { rate: count / took, cpu: spent * 1e6 / count })
}

struct Load {
    socket: UdpSocket,
    at: usize,
    in_flight: usize,
    answered: usize,
    good: usize,
    lost: usize,
}

impl Load {
    fn run(&mut self, queries: &[Vec<u8>], end: Instant) -> anyhow::Result<()> {
        let mut sending = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut receiving = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        let mut buffers = [[0; 512]; BATCH];
        while Instant::now() < end {
            self.send(queries, &mut sending)?;
            self.receive(&mut buffers, &mut receiving)?;
        }
        while self.in_flight > 0 {
            self.receive(&mut buffers, &mut receiving)?;
        }
        Ok(())
    }

    fn send(&mut self, queries: &[Vec<u8>], headers: &mut MultiHeaders<SockaddrIn>) -> anyhow::Result<()> {
        let count = (OUTSTANDING - self.in_flight).min(BATCH).min(queries.len() - self.at);
        if count == 0 {
            return Ok(());
        }
        let batch = &queries[self.at..self.at + count];
        let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|query| [IoSlice::new(query)]).collect();
        let nowhere = [None; BATCH];
        sendmmsg(self.socket.as_raw_fd(), headers, &slices, &nowhere[..count], [], MsgFlags::empty())
            .context("the server is gone")?;
        self.at = (self.at + count) % queries.len();
        self.in_flight += count;
        Ok(())
    }

    fn receive(
        &mut self,
        buffers: &mut [[u8; 512]; BATCH],
        headers: &mut MultiHeaders<SockaddrIn>,
    ) -> anyhow::Result<()> {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let received =
            recvmmsg(self.socket.as_raw_fd(), headers, &mut slices, MsgFlags::MSG_WAITFORONE, None);
        let lengths: Vec<usize> = match received {
            Ok(received) => received.map(|message| message.bytes).collect(),
            // None for 200 ms: what is still out is lost.
            Err(Errno::EAGAIN) => {
                self.lost += self.in_flight;
                self.in_flight = 0;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.answered += lengths.len();
        self.in_flight = self.in_flight.saturating_sub(lengths.len());
        self.good += lengths
            .iter()
            .zip(buffers.iter())
            .filter(|(length, bytes)| is_address(&bytes[..**length]))
            .count();
        Ok(())
    }
}
