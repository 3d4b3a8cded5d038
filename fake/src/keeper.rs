//! The keeper's end of a worker's link: welcomes it, holds what it is given, and says what it was told. Must never pump a
//! stream: a test looks at both of its ends itself.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, send, socketpair,
};
use selvedge_keeper::link::Link;
use selvedge_keeper::protocol::PROTOCOL;
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// A stream that the worker has handed over.
#[derive(Debug)]
pub struct Given {
    /// What the worker said of it.
    pub head: Value,
    /// What was pending: for the engine, the note, for the client.
    pub bytes: Vec<u8>,
    /// The client's socket.
    pub client: OwnedFd,
    /// The engine's.
    pub engine: OwnedFd,
}

impl Given {
    /// What is pending for the engine, and for the client.
    pub fn pending(&self) -> (&[u8], &[u8]) {
        let to_engine = self.head["to_upstream"].as_u64().unwrap() as usize;
        let note = self.head["resume"]["note"].as_u64().unwrap_or(0) as usize;
        (&self.bytes[..to_engine], &self.bytes[to_engine + note..])
    }

    /// What the worker wrote for the one that finds the rest.
    pub fn note(&self) -> Value {
        let to_engine = self.head["to_upstream"].as_u64().unwrap() as usize;
        let note = self.head["resume"]["note"].as_u64().unwrap_or(0) as usize;
        serde_json::from_slice(&self.bytes[to_engine..][..note]).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct State {
    said: Vec<String>,
    streams: VecDeque<Given>,
    held: HashMap<u64, OwnedFd>,
    /// What was read from clients that were given back.
    given_back: Vec<(u64, Vec<u8>)>,
}

/// The keeper.
#[derive(Debug, Clone)]
pub struct Keeper {
    state: Arc<Mutex<State>>,
    news: watch::Sender<usize>,
    socket: Arc<AsyncFd<OwnedFd>>,
}

impl Keeper {
    /// One that has welcomed a worker, and that worker's end.
    pub fn welcoming() -> (Self, Link) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        // SAFETY: the descriptor is owned, and stays in here.
        let socket = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE) };
        let socket = Arc::new(socket.unwrap());
        let keeper = Self { state: Arc::default(), news: watch::Sender::new(0), socket };
        keeper.say(&json!({
            "type": "welcome", "protocol": PROTOCOL, "version": "fake", "sockets": [], "stderr": false, "more": false,
        }));
        let reader = keeper.clone();
        tokio::spawn(async move { while reader.hear().await {} });
        (keeper, Link::new(theirs))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Says something to the worker, without descriptors.
    pub fn say(&self, head: &Value) {
        let head = head.to_string();
        let mut packet = vec![b'S', b'K', 1, 0];
        packet.extend_from_slice(&u32::try_from(head.len()).unwrap().to_le_bytes());
        packet.extend_from_slice(head.as_bytes());
        send(self.socket.as_raw_fd(), &packet, MsgFlags::empty()).unwrap();
    }

    /// The kinds of messages that it got, with the client's number or the connection's.
    pub fn said(&self) -> Vec<String> {
        self.state().said.clone()
    }

    /// A copy of the connections that it holds for the worker.
    pub fn held(&self) -> Vec<(u64, OwnedFd)> {
        let state = self.state();
        state.held.iter().map(|(key, fd)| (*key, fd.try_clone().unwrap())).collect()
    }

    /// What was read from clients that were given back.
    pub fn given_back(&self) -> Vec<(u64, Vec<u8>)> {
        self.state().given_back.clone()
    }

    /// Waits for the next stream that is handed over.
    pub async fn stream(&self) -> Given {
        let mut news = self.news.subscribe();
        loop {
            if let Some(given) = self.state().streams.pop_front() {
                return given;
            }
            news.changed().await.unwrap();
        }
    }

    /// Waits until the worker has said this.
    pub async fn until_said(&self, what: &str) {
        let mut news = self.news.subscribe();
        while !self.said().iter().any(|said| said == what) {
            news.changed().await.unwrap();
        }
    }

    async fn hear(&self) -> bool {
        let Ok(mut ready) = self.socket.readable().await else { return false };
        match ready.try_io(|socket| receive(socket.get_ref())) {
            Ok(Ok(Some((packet, fds)))) => self.take(&packet, fds),
            Ok(_) => return false,
            Err(_) => {}
        }
        true
    }

    fn take(&self, packet: &[u8], mut fds: Vec<OwnedFd>) {
        let length = u32::from_le_bytes(packet[4..8].try_into().unwrap()) as usize;
        let head: Value = serde_json::from_slice(&packet[8..][..length]).unwrap();
        let bytes = packet[8 + length..].to_vec();
        let mut state = self.state();
        let number = head["client"].as_u64().or(head["key"].as_u64()).or(head["id"].as_u64());
        let kind = head["type"].as_str().unwrap().to_owned();
        match (kind.as_str(), number) {
            ("hold", Some(key)) => _ = state.held.insert(key, fds.remove(0)),
            ("drop", Some(key)) => _ = state.held.remove(&key),
            ("give_back", Some(client)) => state.given_back.push((client, bytes)),
            ("stream", _) => {
                let (engine, client) = (fds.remove(1), fds.remove(0));
                state.streams.push_back(Given { head, bytes, client, engine });
            }
            _ => {}
        }
        state.said.push(number.map_or(kind.clone(), |number| format!("{kind} {number}")));
        drop(state);
        self.news.send_modify(|heard| *heard += 1);
    }
}

/// One packet; nothing when the worker is gone.
fn receive(socket: &OwnedFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; 128 * 1024];
    let mut space = nix::cmsg_space!([i32; 8]);
    let (read, fds) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just opened them for us alone.
                fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        (message.bytes, fds)
    };
    bytes.truncate(read);
    Ok((read > 0).then_some((bytes, fds)))
}
