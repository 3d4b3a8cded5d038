//! A relay between two unix sockets, for measuring: `relay pump|splice|copy LISTEN CONNECT`.
//!
//! `pump` is the keeper's own pump; `splice` and `copy` are the simplest possible relays: one blocking thread per
//! direction. It must never be more than a yardstick: it reports no errors.

use rustix::net::{Shutdown, shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use selvedge_keeper::relay::Relay;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, mode, listen, connect] = args.as_slice() else {
        eprintln!("usage: relay pump|splice|copy LISTEN CONNECT");
        return Ok(());
    };
    let listener = UnixListener::bind(listen)?;
    if mode == "pump" {
        return pump(listener, connect);
    }
    let carry = if mode == "splice" { by_splice } else { by_copy };
    for client in listener.incoming() {
        let (client, upstream) = (client?, UnixStream::connect(connect)?);
        let back = (upstream.try_clone()?, client.try_clone()?);
        for (from, to) in [(client, upstream), back] {
            thread::spawn(move || {
                let _ = carry(&from, &to);
                let _ = shutdown(&to, Shutdown::Write);
            });
        }
    }
    Ok(())
}

fn pump(listener: UnixListener, connect: &str) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut relay = Relay::new()?;
    relay.watch(&listener)?;
    loop {
        if relay.turn(None)? {
            match listener.accept() {
                Ok((client, _)) => {
                    let upstream = UnixStream::connect(connect)?;
                    relay.give(client.into(), upstream.into(), [Vec::new(), Vec::new()])?;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn by_copy(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

fn by_splice(from: &UnixStream, to: &UnixStream) -> io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let size = fcntl_setpipe_size(&writer, 1 << 20)?;
    loop {
        let mut held = splice(from, None, &writer, None, size, SpliceFlags::MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(&reader, None, to, None, held, SpliceFlags::MOVE)?;
        }
    }
}
