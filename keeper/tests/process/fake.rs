//! The roles: a keeper with a plan from its arguments, and a worker that does what its clients tell it.
//!
//! It must never do by itself what a test could ask it to do.

use crate::held::Held;
use rustix::event::{PollFd, PollFlags, poll};
use selvedge_keeper::link::{Link, Order, Resume, Stream};
use selvedge_keeper::plan::{Listener, ListenerKind, Plan, Program};
use selvedge_keeper::position::Position;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// `role-keeper DIR EXTRA`: one API socket, one whose clients the keeper accepts, and `EXTRA` more sockets.
pub(crate) fn keeper(args: Vec<String>) -> ExitCode {
    let dir = PathBuf::from(&args[0]);
    let exe = std::env::current_exe().unwrap();
    let worker_exe = dir.join("worker-exe");
    let keeper_args = ["role-keeper".to_owned()].into_iter().chain(args.clone());
    let mut plan = Plan::new(
        Program { exe: worker_exe, args: vec!["role-worker".into(), args[0].clone().into()] },
        Program { exe, args: keeper_args.map(Into::into).collect() },
        dir.clone(),
    );
    let unix = |path: PathBuf| ListenerKind::UnixStream { path, mode: 0o600, uid: 0, gid: 0 };
    plan.listeners.push(Listener { name: "api".into(), kind: unix(dir.join("api.sock")) });
    plan.listeners.push(Listener { name: "held".into(), kind: unix(dir.join("held.sock")) });
    plan.accepts = |name| name == "held";
    for number in 0..args[1].parse().unwrap() {
        let kind = ListenerKind::Udp("127.0.0.1:0".parse().unwrap());
        plan.listeners.push(Listener { name: format!("extra{number}"), kind });
    }
    plan.ready_timeout = Duration::from_secs(3);
    plan.stop_grace = Duration::from_millis(1500);
    plan.worker_timeout = Duration::from_secs(2);
    plan.version = "keeper-1".into();
    match std::fs::read_to_string(dir.join("keeper-mode")).unwrap_or_default().trim() {
        "broken" => {
            eprintln!("the configuration is broken");
            return ExitCode::FAILURE;
        }
        "hang" => std::thread::sleep(Duration::from_secs(30)),
        "fine" => plan.version = "keeper-2".into(),
        _ => {}
    }
    match selvedge_keeper::run(plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keeper ended: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Worker {
    link: Link,
    listener: Option<UnixListener>,
    clients: Vec<UnixStream>,
    parked: Vec<(u64, UnixStream)>,
    sockets: usize,
    asked: Vec<(u64, UnixStream)>,
    held: Held,
}

/// `role-worker DIR`: a file `mode` in DIR tells it to misbehave.
pub(crate) fn worker(args: Vec<String>) -> ExitCode {
    let mode = std::fs::read_to_string(PathBuf::from(&args[0]).join("mode")).unwrap_or_default();
    let link = Link::from_env().unwrap();
    match mode.trim() {
        "crash" => {
            eprintln!("the reason is here");
            return ExitCode::from(3);
        }
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        "refuse" => {
            link.hello("refusing").unwrap();
            link.refuse("line 7 of the configuration is wrong").unwrap();
            return ExitCode::FAILURE;
        }
        "protocol" => {
            let hello = br#"{"type":"hello","protocol":99,"version":"future","pid":1,"unknown":[]}"#;
            let mut packet = vec![b'S', b'K', 1, 0];
            packet.extend((hello.len() as u32).to_le_bytes());
            packet.extend(hello);
            rustix::io::write(&link, &packet).unwrap();
            std::thread::sleep(Duration::from_secs(20));
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    let welcome = link.hello(&format!("worker-{}", mode.trim())).unwrap();
    let held = Held::new(&link);
    let mut listener = None;
    let sockets = welcome.sockets.len() - 1;
    for (name, fd) in welcome.sockets {
        if name == "api" {
            listener = Some(UnixListener::from(fd));
        }
    }
    link.ready().unwrap();
    if mode.trim() == "die-after-ready" {
        return ExitCode::FAILURE;
    }
    let mut worker = Worker { link, listener, clients: vec![], parked: vec![], sockets, asked: vec![], held };
    while worker.turn() {}
    ExitCode::SUCCESS
}

impl Worker {
    /// One turn: false if it is time to leave.
    fn turn(&mut self) -> bool {
        let mut polled = vec![PollFd::new(&self.link, PollFlags::IN)];
        polled.extend(self.listener.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        polled.extend(self.clients.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let clients = polled.len();
        polled.extend(self.held.sockets().map(|fd| PollFd::new(fd, PollFlags::IN)));
        poll(&mut polled, None).unwrap();
        let spoke: Vec<bool> = polled[clients..].iter().map(|fd| !fd.revents().is_empty()).collect();
        polled.truncate(clients);
        let orders = !polled[0].revents().is_empty();
        let first = 1 + usize::from(self.listener.is_some());
        let mut ready: Vec<usize> = (first..polled.len())
            .filter(|at| !polled[*at].revents().is_empty())
            .map(|at| at - first)
            .collect();
        ready.reverse();
        self.held.serve(&self.link, &spoke);
        for at in ready {
            let client = self.clients.remove(at);
            self.serve(client);
        }
        if let Some(Ok((client, _))) = self.listener.as_ref().map(UnixListener::accept) {
            client.set_nonblocking(false).unwrap();
            self.clients.push(client);
        }
        while let Some(order) = orders.then(|| self.link.try_recv().unwrap()).flatten() {
            if !self.obey(order) {
                return false;
            }
        }
        // Drained, and nothing is left to do.
        !(self.listener.is_none() && self.clients.is_empty() && self.asked.is_empty())
    }

    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Drain { .. } => self.drain(),
            Order::Stop { .. } | Order::KeeperGone => return false,
            Order::Status { id, snapshot } => {
                let at = self.asked.iter().position(|(asked, _)| *asked == id).unwrap();
                let (_, mut client) = self.asked.remove(at);
                let line = serde_json::to_string(&snapshot).unwrap() + "\n";
                let _ = client.write_all(line.as_bytes());
                self.clients.push(client);
            }
            Order::Conn { client, read, listener } => {
                assert_eq!(listener, "api");
                let mut client = UnixStream::from(client);
                if read == b"half" {
                    let _ = client.write_all(b"half was read\n");
                }
                self.clients.push(client);
            }
            Order::Parked { id, client, note, ended: Some(ended) } => {
                self.go_on(id, client.into(), (&note, ended.position));
            }
            Order::Parked { id, client, note, ended: None } => {
                let mut client = UnixStream::from(client);
                let pid = std::process::id();
                let note = String::from_utf8(note).unwrap();
                let (by, long) = note.split_once(' ').unwrap();
                let note = format!("{by} with a note of {}", long.len());
                client.write_all(format!("parked by {note}, now with {pid}\n").as_bytes()).unwrap();
                self.parked.push((id, client));
            }
            order => self.held.obey(&self.link, order),
        }
        true
    }

    fn drain(&mut self) {
        self.listener = None;
        self.link.release().unwrap();
        self.held.give_back(&self.link);
        for client in std::mem::take(&mut self.clients) {
            self.hand_over(client);
        }
        self.link.done().unwrap();
    }

    fn hand_over(&self, mut client: UnixStream) {
        while let Err(back) = self.link.give_conn("api", client.into(), b"half") {
            assert!(matches!(back.error, selvedge_keeper::error::Error::QueueFull), "{}", back.error);
            client = UnixStream::from(back.fds.into_iter().next().unwrap());
            poll(&mut [PollFd::new(&self.link, PollFlags::OUT)], None).unwrap();
        }
    }

    /// Reads one line of a client and does what it says.
    fn serve(&mut self, mut client: UnixStream) {
        let mut line = Vec::new();
        let mut byte = [0];
        while client.read(&mut byte).is_ok_and(|read| read == 1) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "" => return,
            "pid" => client.write_all(format!("{}\n", std::process::id()).as_bytes()).unwrap(),
            "sockets" => client.write_all(format!("{}\n", self.sockets).as_bytes()).unwrap(),
            "stream" => return self.give(client, rest),
            "resumable" => {
                let position = Position::new(true);
                return self.give_resumable(client, (rest.as_bytes(), position), None);
            }
            "status" => return self.asked.push((self.link.ask_status().unwrap(), client)),
            "park" => {
                let long = "x".repeat(rest.parse().unwrap_or(0));
                let note = format!("{} {long}", std::process::id());
                let id = self.link.park(client.as_fd(), note.as_bytes()).unwrap();
                client.write_all(b"parked\n").unwrap();
                return self.parked.push((id, client));
            }
            "unpark" => self.parked.drain(..).for_each(|(id, _)| self.link.unpark(id).unwrap()),
            "flood" => self.flood(),
            "abort" => std::process::abort(),
            "half" => {
                // Dies after the stream's descriptors are gone, in the midst of its work.
                let _ = rustix::net::send(&self.link, b"SK\x01\x00\xff", rustix::net::SendFlags::DONTWAIT);
                std::process::abort();
            }
            _ => {}
        }
        self.clients.push(client);
    }

    fn give(&self, client: UnixStream, rest: &str) {
        let (path, pending) = rest.split_once(' ').unwrap_or((rest, ""));
        let upstream: OwnedFd = UnixStream::connect(path).unwrap().into();
        let (to_upstream, to_client) = (pending.as_bytes(), b"begin ");
        let client = client.into();
        let (label, resume, replaces) = ("test stream", None, None);
        let (held, input) = (None, None);
        let stream =
            Stream { label, client, upstream, to_upstream, to_client, resume, replaces, held, input };
        self.link.give_stream(stream).unwrap();
    }

    /// The note is the path of the upstream, and perhaps that of the input.
    fn give_resumable(&self, client: UnixStream, so_far: (&[u8], Position), replaces: Option<u64>) {
        let (note, position) = so_far;
        let path = std::str::from_utf8(note).unwrap();
        // What comes after the path: the path of where the client's bytes go.
        let (path, input) = path.split_once(' ').map_or((path, None), |(path, input)| (path, Some(input)));
        let upstream: OwnedFd = UnixStream::connect(path).unwrap().into();
        let input = input.map(|path| UnixStream::connect(path).unwrap().into());
        let resume = Some(Resume { note, position, hold_upstream: input.is_some() });
        let (label, client, held) = ("resumable", client.into(), None);
        let (to_upstream, to_client) = (b"", b"");
        let stream =
            Stream { label, client, upstream, to_upstream, to_client, resume, replaces, held, input };
        self.link.give_stream(stream).unwrap();
    }

    /// An upstream is over: tells the next one how far its client has come.
    fn go_on(&self, id: u64, client: UnixStream, so_far: (&[u8], Position)) {
        let path = std::str::from_utf8(so_far.0).unwrap().split(' ').next().unwrap();
        // Nobody listens there: whoever comes next shall try.
        let Ok(mut told) = UnixStream::connect(path) else { std::process::abort() };
        serde_json::to_writer(&mut told, &so_far.1).unwrap();
        self.give_resumable(client, so_far, Some(id));
    }

    /// Garbage of all kinds, with and without descriptors.
    fn flood(&self) {
        let long = vec![b'x'; 70_000];
        for number in 0..5000_u32 {
            let bytes: &[u8] = match number % 5 {
                0 => b"garbage",
                1 => b"",
                2 => b"SK\x01\x00\xff\xff\xff\xff",
                3 => &long,
                _ => b"SK\x01\x00\x30\x00\x00\x00{\"type\":\"stream\",\"label\":\"x\",\"to_upstream\":9999}",
            };
            while rustix::net::send(&self.link, bytes, rustix::net::SendFlags::DONTWAIT).is_err() {
                poll(&mut [PollFd::new(&self.link, PollFlags::OUT)], None).unwrap();
            }
        }
    }
}
