//! A worker's clients that the keeper accepted. Its memory holds its pid, so that the next one can tell whose it is.
//!
//! It must never do by itself what a test could ask it to do.

use selvedge_keeper::link::{Link, Order};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;

/// One client, and how it came.
struct Client {
    id: u64,
    socket: UnixStream,
    how: String,
}

/// All of them.
pub(crate) struct Held {
    clients: Vec<Client>,
    /// What the last estate says.
    left: String,
    settled: bool,
    connections: Vec<UnixStream>,
}

impl Held {
    pub(crate) fn new(link: &Link) -> Held {
        let memory = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = std::fs::File::from(memory);
        file.write_all_at(std::process::id().to_string().as_bytes(), 0).unwrap();
        link.memory(file.as_fd()).unwrap();
        Held { clients: vec![], left: String::new(), settled: false, connections: vec![] }
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = &UnixStream> {
        self.clients.iter().map(|client| &client.socket)
    }

    pub(crate) fn obey(&mut self, link: &Link, order: Order) {
        match order {
            Order::Estate { memory, .. } => {
                let mut pid = [0; 16];
                let read = std::fs::File::from(memory).read_at(&mut pid, 0).unwrap();
                self.left = String::from_utf8_lossy(&pid[..read]).into_owned();
            }
            Order::Held { connections, .. } => {
                for (key, connection) in connections {
                    let mut connection = UnixStream::from(connection);
                    connection.write_all(format!("{key} goes on").as_bytes()).unwrap();
                    self.connections.push(connection);
                }
            }
            Order::Client { id, client, read, estate, listener } => {
                assert_eq!(listener, "held");
                if estate.is_some() || !read.is_empty() {
                    link.taken(id).unwrap();
                }
                let left = estate.map_or("none", |_| &self.left);
                let when = if self.settled { "at once" } else { "first" };
                let how = format!("{when}, left by {left}, read {:?}", String::from_utf8_lossy(&read));
                self.clients.push(Client { id, socket: client.into(), how });
            }
            Order::Settled => self.settled = true,
            _ => {}
        }
    }

    /// Serves those that have said something.
    pub(crate) fn serve(&mut self, link: &Link, spoke: &[bool]) {
        let mut all = std::mem::take(&mut self.clients);
        let late = all.split_off(spoke.len());
        for (mut client, spoke) in all.into_iter().zip(spoke) {
            if !*spoke || self.one(link, &mut client) {
                self.clients.push(client);
            }
        }
        self.clients.extend(late);
    }

    /// Whether it stays.
    fn one(&mut self, link: &Link, client: &mut Client) -> bool {
        let (mut line, mut byte) = (Vec::new(), [0]);
        client.socket.set_nonblocking(false).unwrap();
        while client.socket.read(&mut byte).is_ok_and(|read| read == 1) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "how" => writeln!(client.socket, "pid {}, {}", std::process::id(), client.how).unwrap(),
            "hold" => {
                let mut connection = UnixStream::connect(rest).unwrap();
                connection.write_all(b"begun, ").unwrap();
                link.hold(5, connection.as_fd()).unwrap();
                writeln!(client.socket, "held").unwrap();
                self.connections.push(connection);
            }
            "drop" => {
                link.drop_held(5).unwrap();
                self.connections.clear();
            }
            "end" => {
                link.end(client.id).unwrap();
                return false;
            }
            "abort" => std::process::abort(),
            _ => return false,
        }
        true
    }

    pub(crate) fn give_back(&mut self, link: &Link) {
        for client in self.clients.drain(..) {
            link.give_back(client.id, b"half").unwrap();
        }
    }
}
