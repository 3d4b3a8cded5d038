//! A server to ask, an upstream that does as its names say, and dig. It must never use a fixed port but 53 on a
//! loopback address of its own.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name as HickoryName, RData, Record as HickoryRecord};
use selvedge_dns::resolv_conf::Turns;
use selvedge_dns::{Server, Settings};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;
use selvedge_registry::table::Table;

pub(crate) struct Lab {
    pub(crate) server: Server,
    pub(crate) address: SocketAddr,
    pub(crate) table: TableWriter,
    /// Second holders of the server's sockets, as the keeper is one.
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    _quiet: Option<RwLockReadGuard<'static, ()>>,
}

/// Tests that measure times hold it for reading; one that keeps the whole machine busy for writing.
pub(crate) static QUIET: RwLock<()> = RwLock::new(());

impl Lab {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let quiet = QUIET.read().unwrap_or_else(PoisonError::into_inner);
        Self { _quiet: Some(quiet), ..Self::start_in_noise(change) }
    }

    /// For a test that holds [`QUIET`] itself.
    pub(crate) fn start_in_noise(change: impl FnOnce(&mut Settings)) -> Self {
        let (udp, tcp) = both("127.0.0.1");
        let address = udp.local_addr().unwrap();
        let table = TableWriter::new(Table::new(Name::parse("selvedge.internal").unwrap()));
        let mut settings = Settings::new(table.reader(), address, "10.32.0.0/12".parse().unwrap());
        settings.limits.upstream_patience = Duration::from_millis(150);
        settings.limits.lookup = Duration::from_millis(1200);
        settings.limits.turns = Some(Turns { timeout: Duration::from_millis(600), attempts: 2 });
        settings.limits.tcp_patience = Duration::from_millis(800);
        // The machine's own servers are not to be asked: without any, that is 127.0.0.1.
        settings.resolv_conf = "/dev/null".into();
        change(&mut settings);
        let sockets = (udp.try_clone().unwrap(), tcp.try_clone().unwrap());
        let server = Server::spawn(settings, vec![sockets.0], vec![sockets.1]).unwrap();
        Self { server, address, table, udp, tcp, _quiet: None }
    }

    pub(crate) fn put(&self, id: &str, address: &str, names: &[&str], upstreams: &[SocketAddr]) {
        let names = names.iter().map(|text| Name::parse(text).unwrap()).collect();
        let mut record = Record::new(id, address.parse().unwrap(), names);
        record.upstreams = upstreams.to_vec();
        assert_eq!(self.table.write().put(record), []);
    }

    /// What dig says; `arguments` as on its command line.
    pub(crate) fn dig(&self, arguments: &str) -> String {
        let output = Command::new("dig")
            .args([format!("@{}", self.address.ip()), "-p".to_owned(), self.address.port().to_string()])
            .args(["+time=3", "+tries=1"])
            .args(arguments.split_whitespace())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What dig says, of which each of `parts` must be a part.
    #[track_caller]
    pub(crate) fn says(&self, arguments: &str, parts: &[&str]) -> String {
        let said = self.dig(arguments);
        for part in parts {
            assert!(said.contains(part), "no {part:?} in the answer to {arguments:?}:\n{said}");
        }
        said
    }
}

/// A UDP socket and a TCP listener on one port.
fn both(ip: &str) -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((ip, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port that is free for both");
}

type Counts = Arc<Mutex<HashMap<String, usize>>>;

/// A name server that treats each name as its first label says. It ends with the test's process.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    counts: Counts,
    silent: Arc<AtomicBool>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        Self::with(Manner::default())
    }

    /// One that treats all names in the same way.
    pub(crate) fn with(manner: Manner) -> Self {
        let (udp, tcp) = both("127.0.0.1");
        Self::run(udp, tcp, manner)
    }

    pub(crate) fn on_port_53(ip: &str) -> Option<Self> {
        let (udp, tcp) = (UdpSocket::bind((ip, 53)).ok()?, TcpListener::bind((ip, 53)).ok()?);
        Some(Self::run(udp, tcp, Manner::default()))
    }

    fn run(udp: UdpSocket, tcp: TcpListener, manner: Manner) -> Self {
        let address = udp.local_addr().unwrap();
        let (counts, silent) = (Counts::default(), Arc::new(AtomicBool::new(false)));
        let (for_udp, for_tcp, quiet) = (counts.clone(), counts.clone(), Arc::clone(&silent));
        std::thread::spawn(move || serve_udp(&udp, (&for_udp, manner), &quiet));
        // The ports of these are closed: by TCP glibc would wait for ever.
        if !matches!(manner.label, Some("cut" | "silent")) {
            std::thread::spawn(move || accept(&tcp, &for_tcp, manner));
        }
        Self { address, counts, silent }
    }

    /// From now on it takes datagrams and says nothing, or it answers.
    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// How often it was asked: `udp ok.test.`
    pub(crate) fn asked(&self, what: &str) -> usize {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }
}

/// How a name server treats names, where these do not say it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Manner {
    /// As if this were the first label of all names.
    pub(crate) label: Option<&'static str>,
    /// The last number of the address that it gives.
    pub(crate) last: Option<u8>,
    /// The TTL of its addresses, in seconds.
    pub(crate) ttl: Option<u32>,
}

fn serve_udp(udp: &UdpSocket, (counts, manner): (&Counts, Manner), silent: &AtomicBool) {
    let mut bytes = [0; 4096];
    while let Ok((length, peer)) = udp.recv_from(&mut bytes) {
        if silent.load(Ordering::SeqCst) {
            continue;
        }
        let udp = udp.try_clone().unwrap();
        let replies = act(&bytes[..length], "udp", (counts, manner));
        std::thread::spawn(move || {
            for (pause, reply) in replies {
                std::thread::sleep(pause);
                udp.send_to(&reply, peer).unwrap();
            }
        });
    }
}

fn accept(tcp: &TcpListener, counts: &Counts, manner: Manner) {
    for stream in tcp.incoming() {
        let counts = counts.clone();
        std::thread::spawn(move || serve_tcp(stream.unwrap(), (&counts, manner)));
    }
}

fn serve_tcp(mut stream: TcpStream, (counts, manner): (&Counts, Manner)) {
    while let Some(query) = receive(&mut stream) {
        for (pause, reply) in act(&query, "tcp", (counts, manner)) {
            std::thread::sleep(pause);
            send(&mut stream, &reply);
        }
    }
}

/// What to send, each after a pause.
fn act(query: &[u8], transport: &str, (counts, manner): (&Counts, Manner)) -> Vec<(Duration, Vec<u8>)> {
    let query = Message::from_vec(query).unwrap();
    let name = query.queries[0].name().clone();
    *counts.lock().unwrap().entry(format!("{transport} {}", name.to_lowercase())).or_default() += 1;
    let mut reply = Message::response(query.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.queries = query.queries.clone();
    reply.edns = query.edns.clone();
    let address = |last: u8| {
        let last = manner.last.unwrap_or(last);
        let ttl = manner.ttl.unwrap_or(60);
        HickoryRecord::from_rdata(name.clone(), ttl, RData::A(A(Ipv4Addr::new(192, 0, 2, last))))
    };
    let first = name.iter().next().map(|label| String::from_utf8(label.to_ascii_lowercase()).unwrap());
    let mut pause = Duration::ZERO;
    match manner.label.or(first.as_deref()) {
        Some("nodata") => drop(reply.add_authority(soa(&name))),
        Some("refused") => reply.metadata.response_code = ResponseCode::Refused,
        Some("cut") => reply.metadata.truncation = true,
        Some("tcp") if transport == "udp" => reply.metadata.truncation = true,
        Some("neg") => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa(&name));
        }
        Some("big") if transport == "udp" => reply.metadata.truncation = true,
        Some("big") => drop(reply.add_answers((0..200).map(address))),
        Some("servfail") => reply.metadata.response_code = ResponseCode::ServFail,
        Some("silent") => return vec![],
        Some("slow") => {
            pause = Duration::from_millis(300);
            reply.add_answer(address(5));
        }
        Some("spoofed") => {
            reply.add_answer(address(66));
            let mut other_id = reply.clone();
            other_id.metadata.id ^= 1;
            let mut other_name = reply.clone();
            other_name.queries[0].set_name(HickoryName::from_ascii("evil.test.").unwrap());
            reply.answers = vec![address(1)];
            let messages = [other_id, other_name, reply];
            return messages.map(|message| (Duration::ZERO, message.to_vec().unwrap())).to_vec();
        }
        Some("malformed") => {
            reply.add_answer(address(1));
            let mut bytes = reply.to_vec().unwrap();
            bytes.truncate(bytes.len() - 3);
            return vec![(pause, bytes)];
        }
        _ => drop(reply.add_answer(address(1))),
    }
    vec![(pause, reply.to_vec().unwrap())]
}

fn soa(name: &HickoryName) -> HickoryRecord {
    let soa = SOA::new(name.clone(), name.clone(), 1, 2, 3, 4, 30);
    HickoryRecord::from_rdata(name.base_name(), 90, RData::SOA(soa))
}

/// The next message from a TCP connection; nothing at its end.
pub(crate) fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// Sends a message over TCP; the other end may have gone.
pub(crate) fn send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let _ = stream.write_all(&[&length, message].concat());
}

/// A plain query for addresses.
pub(crate) fn query(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(Name::parse(name).unwrap().into_absolute().wire());
    bytes.extend_from_slice(&[0, 1, 0, 1]);
    bytes
}
