//! When a client has a record, and when it has none.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use super::*;

#[derive(Debug, Default)]
struct Ended(Mutex<Vec<u64>>);

impl Closer for Ended {
    fn end(&self, client: u64, _record: Option<Arc<Entry>>) {
        self.0.lock().unwrap().push(client);
    }
}

#[test]
fn a_socket_that_has_nothing_to_say_costs_no_record() {
    let (ledger, memory) = Ledger::create().unwrap();
    let closer = Arc::new(Ended::default());
    let mut incoming = Incoming::new(ledger, Arc::clone(&closer) as Arc<dyn Closer>, 7);
    let (mut client, socket) = UnixStream::pair().unwrap();
    let mut into = Vec::new();
    let recorded = || Ledger::read(memory.try_clone().unwrap()).unwrap().len();
    let nothing = incoming.receive(socket.as_fd(), &mut into).unwrap_err();
    assert_eq!((nothing.kind(), recorded()), (io::ErrorKind::WouldBlock, 0));
    std::io::Write::write_all(&mut client, b"GET / ").unwrap();
    assert_eq!(incoming.receive(socket.as_fd(), &mut into).unwrap().len, 6);
    assert!(incoming.receive(socket.as_fd(), &mut into).is_err());
    assert_eq!((into.as_slice(), recorded()), (&b"GET / "[..], 1), "what it has said stays");
    incoming.next(true);
    assert_eq!(recorded(), 0);
    assert!(incoming.receive(socket.as_fd(), &mut into).is_err());
    assert_eq!(recorded(), 0);
    drop(incoming);
    assert_eq!(*closer.0.lock().unwrap(), [7]);
}
