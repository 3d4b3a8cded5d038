//! A server as it should be: tells its name to whoever connects, and when it is told to stop, takes nobody new, ends what
//! it has begun, and goes.
//!
//! `selvedge-answer PORT NAME [MILLISECONDS]`: listens after so long, as a program does that has much to read first.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

/// What is asked for is over by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a server that nobody calls looks whether it shall stop.
const LOOK: Duration = Duration::from_millis(5);

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().and_then(|port| port.parse().ok()).ok_or(ErrorKind::InvalidInput)?;
    let name = arguments.next().unwrap_or_default();
    let after = arguments.next().and_then(|after| after.parse().ok()).unwrap_or(0);
    let stop = told_to_stop()?;
    std::thread::sleep(Duration::from_millis(after));
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    listener.set_nonblocking(true)?;
    answer_udp(UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?, name.clone());
    let busy = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => serve(stream, name.clone(), &busy),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
    drop(listener);
    let until = Instant::now() + PATIENCE;
    while busy.load(Ordering::Relaxed) > 0 && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Becomes true with SIGTERM.
fn told_to_stop() -> std::io::Result<Arc<AtomicBool>> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = signals.wait();
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

fn serve(mut stream: TcpStream, name: String, busy: &Arc<AtomicUsize>) {
    busy.fetch_add(1, Ordering::Relaxed);
    let busy = Arc::clone(busy);
    std::thread::spawn(move || {
        let _ = stream.set_nonblocking(false);
        let _ = stream.write_all(format!("{name}\n").as_bytes());
        // Whoever is greeted says goodbye, or goes on talking.
        let mut heard = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut heard) {
            let _ = stream.write_all(&heard[..length]);
        }
        busy.fetch_sub(1, Ordering::Relaxed);
    });
}

fn answer_udp(socket: UdpSocket, name: String) {
    std::thread::spawn(move || {
        let mut asked = [0; 64];
        while let Ok((_, asker)) = socket.recv_from(&mut asked) {
            let _ = socket.send_to(format!("{name}\n").as_bytes(), asker);
        }
    });
}
