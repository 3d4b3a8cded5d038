//! A trivially fast engine: shows a proxy's own cost. A thread per connection, answers made beforehand.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

const CHUNK: usize = 64 * 1024;

/// Serves for ever.
///
/// # Errors
/// The socket cannot be bound.
pub(crate) fn serve(socket: &Path) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(socket);
    for client in UnixListener::bind(socket)?.incoming() {
        let client = client?;
        // A client that goes away ends its thread.
        thread::spawn(move || drop(connection(client)));
    }
    Ok(())
}

fn connection(mut client: UnixStream) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut part = [0; 8192];
    loop {
        while let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = buffer.split_off(end + 4);
            let head = String::from_utf8_lossy(&buffer).into_owned();
            if answer(&mut client, &head, &rest)? {
                return Ok(());
            }
            buffer = rest;
        }
        match client.read(&mut part)? {
            0 => return Ok(()),
            read => buffer.extend_from_slice(&part[..read]),
        }
    }
}

/// Answers a request; true when the connection is over.
fn answer(client: &mut UnixStream, head: &str, rest: &[u8]) -> std::io::Result<bool> {
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "/_ping" => reply(client, "OK"),
        "/events" => {
            client.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            let _ = client.read(&mut [0; 1]);
            Ok(true)
        }
        "/containers/json" => reply(client, "[]"),
        "/bulk/down" => down(client, target),
        "/bulk/up" => up(client, target, rest.len() as u64),
        _ if path.ends_with("/json") => reply(client, &inspect()),
        _ => reply(client, "{}"),
    }
}

fn reply(client: &mut UnixStream, body: &str) -> std::io::Result<bool> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    client.write_all(format!("{head}{body}").as_bytes())?;
    Ok(false)
}

/// As long as a real one: some 4 KB.
fn inspect() -> String {
    let fields: Vec<String> = (0..80)
        .map(|number| format!("\"Field{number}\":{{\"Value\":{number},\"Text\":\"some text\"}}"))
        .collect();
    format!("{{\"Id\":\"x\",\"Config\":{{\"Labels\":{{}}}},{}}}", fields.join(","))
}

fn size(target: &str) -> u64 {
    target.split("n=").nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// An attach that only speaks: 101, then bytes, then the end.
fn down(client: &mut UnixStream, target: &str) -> std::io::Result<bool> {
    client.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
    let (chunk, mut left) = ([b'x'; CHUNK], size(target));
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        client.write_all(&chunk[..take])?;
        left -= take as u64;
    }
    Ok(true)
}

/// An attach that only listens: 101, takes the bytes, and says one at the end.
fn up(client: &mut UnixStream, target: &str, mut had: u64) -> std::io::Result<bool> {
    client.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
    let (mut chunk, wanted) = ([0; CHUNK], size(target));
    while had < wanted {
        match client.read(&mut chunk)? {
            0 => break,
            read => had += read as u64,
        }
    }
    client.write_all(b"!")?;
    Ok(true)
}
