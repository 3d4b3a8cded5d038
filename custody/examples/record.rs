//! A request is read, its worker is gone, and the next one answers it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use selvedge_custody::Ledger;

fn main() -> std::io::Result<()> {
    let (mut client, socket) = UnixStream::pair()?;
    let (ledger, memory) = Ledger::create()?;
    client.write_all(b"GET /_ping HTTP/1.1\r\n\r\n")?;
    let dying = ledger.open(1)?;
    dying.receive(socket.as_fd(), &mut Vec::new())?;
    // Killed here, it would take nothing back.
    std::mem::forget(dying);

    let left = Ledger::read(memory)?.remove(0);
    println!(
        "left: client {}, {:?}, {:?}",
        left.client(),
        left.phase(),
        String::from_utf8_lossy(&left.asked())
    );
    let (next, _memory) = Ledger::create()?;
    let record = next.open(left.client())?;
    record.take_over(&left, 0)?;
    record.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", 0, true)?;
    record.write(socket.as_fd())?;
    let mut answer = [0; 64];
    let got = client.read(&mut answer)?;
    println!("answered: {:?}", String::from_utf8_lossy(&answer[..got]));
    Ok(())
}
