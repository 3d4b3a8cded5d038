//! A TCP relay in front of a registry's member, which can make each packet late: this machine's kernel has no netem.
//!
//! Order is kept, and what is on its way is not waited for: a delay is a delay, not a narrow pipe.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A running relay. It ends with the process; its namespace goes before.
#[derive(Debug, Clone, Default)]
pub struct Relay {
    delay: Arc<AtomicU64>,
}

impl Relay {
    /// Listens at `from` and connects to `to`, both in the network namespace.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(netns: &str, from: &str, to: &str) -> Self {
        let relay = Self::default();
        let namespace = File::open(format!("/run/netns/{netns}")).expect("the namespace is there");
        let (told, listens) = mpsc::channel();
        let (own, from, to) = (relay.clone(), from.to_owned(), to.to_owned());
        std::thread::spawn(move || {
            #[expect(clippy::disallowed_methods, reason = "a thread that stays in the namespace to its end")]
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
            let listener = TcpListener::bind(&from).expect("the address is there");
            let _ = told.send(());
            // Connections that are begun here are in this thread's namespace.
            for client in listener.incoming().flatten() {
                let _ = TcpStream::connect(&to).map(|server| own.clone().join(client, server));
            }
        });
        listens.recv().expect("the relay listens");
        relay
    }

    /// From now on each packet is this much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.delay.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    fn join(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else { return };
        self.clone().pump(client, server);
        self.pump(server2, client2);
    }

    fn pump(self, from: TcpStream, to: TcpStream) {
        let (queue, due) = mpsc::channel();
        std::thread::spawn(move || read_all(from, &self.delay, &queue));
        std::thread::spawn(move || write_in_time(to, &due));
    }
}

/// Bytes, and when they are due; none are the end.
type Chunk = (Instant, Vec<u8>);

fn read_all(mut from: TcpStream, delay: &AtomicU64, queue: &mpsc::Sender<Chunk>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let when = Instant::now() + Duration::from_millis(delay.load(Relaxed));
        if queue.send((when, buffer[..read].to_vec())).is_err() || read == 0 {
            return;
        }
    }
}

fn write_in_time(mut to: TcpStream, due: &mpsc::Receiver<Chunk>) {
    for (when, bytes) in due {
        std::thread::sleep(when.saturating_duration_since(Instant::now()));
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
