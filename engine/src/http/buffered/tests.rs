//! Reading: nothing is read in vain, and nothing that comes is overlooked.

use std::io::Write;

use selvedge_custody::{Closer, Ledger};

use super::*;

#[derive(Debug)]
struct NoKeeper;

impl Closer for NoKeeper {
    fn end(&self, _: u64, _: Option<Arc<Entry>>) {}
}

/// A client's end, and ours with each kind of record.
fn ends() -> Vec<(std::os::unix::net::UnixStream, Buffered)> {
    let (ledger, _memory) = Ledger::create().unwrap();
    let entry = Arc::new(ledger.open(1).unwrap());
    let client = Incoming::new(ledger, Arc::new(NoKeeper), 2);
    let records = [Record::Nowhere, Record::Client(client), Record::Engine(entry)];
    let end = |record| {
        let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (theirs, Buffered { io: UnixStream::from_std(ours).unwrap(), unread: Vec::new(), record })
    };
    records.into_iter().map(end).collect()
}

#[tokio::test]
async fn a_socket_that_was_read_empty_is_not_read_again_before_something_comes() {
    let in_vain = || -> io::Result<()> { panic!("a read in vain") };
    for (mut theirs, mut ours) in ends() {
        for request in ["GET /_ping", " HTTP/1.1"] {
            theirs.write_all(request.as_bytes()).unwrap();
            assert!(ours.fill().await.unwrap());
            assert!(ours.unread.ends_with(request.as_bytes()));
            let again = ours.io.try_io(Interest::READABLE, in_vain);
            assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        drop(theirs);
        assert!(!ours.fill().await.unwrap(), "the end of the stream is seen");
    }
}

#[tokio::test]
async fn a_socket_that_has_nothing_takes_no_memory() {
    for (_theirs, mut ours) in ends() {
        // A readiness of before: tokio believes so of a socket that it has never asked.
        assert!(ours.try_fill().await.is_none());
        assert_eq!(ours.unread.capacity(), 0);
    }
}

const ALL: usize = 1 << 20;

/// Writes pieces of all lengths.
fn write_all(theirs: &mut std::os::unix::net::UnixStream) {
    let mut sent = 0;
    while sent < ALL {
        let len = (sent % 977 + 1).min(ALL - sent);
        theirs.write_all(&vec![sent as u8; len]).unwrap();
        sent += len;
    }
}

#[tokio::test]
async fn what_comes_while_a_socket_is_read_is_not_overlooked() {
    for (mut theirs, mut ours) in ends() {
        let writer = std::thread::spawn(move || write_all(&mut theirs));
        let mut got = 0;
        while ours.fill().await.unwrap() {
            got += ours.unread.len();
            ours.used(usize::MAX);
        }
        writer.join().unwrap();
        assert_eq!(got, ALL);
    }
}
