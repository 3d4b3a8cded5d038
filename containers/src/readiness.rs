//! Which of its virtual addresses a container serves: those whose ports it listens on, until it is about to be stopped.
//!
//! An instance takes no connections before its program listens, and none any more when it is told to stop: so a rolling
//! replacement goes unnoticed, also without a HEALTHCHECK. Listening is read from /proc; nothing is sent anywhere.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use selvedge_engine::model::short;
use selvedge_registry::allow::Protocol;
use selvedge_registry::vip;
use tokio::time::Instant;
use tracing::{Instrument, debug, info};

use crate::entry::{Entry, Phase};
use crate::publish;
use crate::shared::Containers;
use crate::span;

/// The state of a socket that listens, and of a UDP socket that is bound (include/net/tcp_states.h).
const LISTEN: &str = "0A";
const CLOSE: &str = "07";
/// Pauses between looks: at first short, for most programs begin at once.
const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(1);
/// A program that was sent a signal and runs on after this time meant something else by it.
pub const AFTER_A_SIGNAL: Duration = Duration::from_secs(60);
/// The grace period of a stop that names none (`docker stop`).
const ENGINE_GRACE: u64 = 10;
/// What the engine may need beyond that.
const LATE: u64 = 60;
/// A stop waits no longer than this for a registry that does not write.
const SLOW_REGISTRY: Duration = Duration::from_secs(2);

/// Looks what a container listens on, until it serves all of its virtual addresses or has ended.
pub fn follow(containers: &Arc<Containers>, id: &str, pid: u32) {
    if containers.book.entry(id).is_none_or(|entry| entry.vips().is_empty()) {
        return;
    }
    let (containers, id, span) = (Arc::clone(containers), id.to_owned(), span::container(id));
    let look = async move {
        let began = Instant::now();
        let mut pause = FIRST;
        loop {
            let Some(entry) = containers.book.entry(&id) else { return };
            if entry.phase != Phase::Wired || entry.pid.is_some_and(|other| other != pid) {
                return;
            }
            let serving = served(&entry, pid);
            if serving != entry.serving {
                debug!(container = short(&id), ?serving, after = ?began.elapsed(), "listens");
                publish::update(&containers, &id, |entry| entry.serving.clone_from(&serving));
            }
            if serving.len() == entry.vips().len() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 5 / 4).min(LONGEST);
        }
    };
    tokio::spawn(look.instrument(span));
}

/// Of a container's virtual addresses those whose ports its programs listen on now.
pub fn served(entry: &Entry, pid: u32) -> Vec<String> {
    let sockets = Sockets::read(pid);
    let is_served = |text: &&String| {
        vip::parse(text).is_ok_and(|vips| {
            vips.iter().all(|vip| sockets.listen(entry.note.address, (vip.target, vip.protocol)))
        })
    };
    entry.vips().into_iter().filter(|text| is_served(&text)).collect()
}

/// The tables of sockets of a container's network namespace, as /proc/PID/net has them.
struct Sockets {
    tcp: [String; 2],
    udp: [String; 2],
}

impl Sockets {
    fn read(pid: u32) -> Self {
        let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
        Self { tcp: [of("tcp"), of("tcp6")], udp: [of("udp"), of("udp6")] }
    }

    /// Whether a process listens on this port, at this address or at all.
    fn listen(&self, address: Ipv4Addr, (port, protocol): (u16, Protocol)) -> bool {
        let (tables, state) = match protocol {
            Protocol::Tcp => (&self.tcp, LISTEN),
            Protocol::Udp => (&self.udp, CLOSE),
        };
        let is_it = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (Some(local), Some(_), Some(found)) = (words.next(), words.next(), words.next()) else {
                return false;
            };
            found == state
                && local.split_once(':').is_some_and(|(at, on)| reaches(at, address) && is(on, port))
        };
        tables.iter().flat_map(|table| table.lines()).any(is_it)
    }
}

fn is(hex: &str, port: u16) -> bool {
    u16::from_str_radix(hex, 16) == Ok(port)
}

/// Whether a socket bound there, as the kernel prints it, is reached at this address: bound to it or to none. Words of
/// four bytes, each in the machine's order.
fn reaches(bound: &str, address: Ipv4Addr) -> bool {
    let own = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    match bound.len() {
        8 => bound == own || bound == "00000000",
        // The unspecified address takes IPv4 too, unless the program says otherwise; and mapped ones.
        _ => bound.bytes().all(|digit| digit == b'0') || bound.ends_with(&own),
    }
}

/// A container is about to be stopped, by a client through us (`wait`: its callers get time to go elsewhere) or past us.
/// If it still runs `for_long` later, it is as before.
pub async fn drain(containers: &Containers, id: &str, for_long: Duration, wait: bool) {
    let Some(entry) = containers.book.entry(id).filter(|entry| entry.phase == Phase::Wired) else { return };
    if entry.vips().is_empty() {
        return;
    }
    // The engine's event of a signal comes in the middle of a stop that may take longer.
    if entry.draining.is_none() {
        info!(container = short(id), "takes no new connections: it is about to be stopped");
    }
    let until = Some(Instant::now() + for_long);
    publish::update(containers, id, |entry| entry.draining = entry.draining.max(until));
    if wait && !entry.serving.is_empty() {
        // Each host says itself that it has acted on it. The registry tells those that cannot, and those that we do not know.
        let elsewhere = containers.host.lead_elsewhere(id, for_long);
        let told = tokio::time::timeout(SLOW_REGISTRY, containers.host.told(id));
        let _ = tokio::join!(elsewhere, told);
        // For the connections that were under way by then.
        tokio::time::sleep(containers.settings.drain).await;
    }
}

/// By when a container has ended that is stopped with this `t`, in seconds; a negative one waits for ever.
pub fn stop_time(t: Option<&str>) -> Duration {
    let seconds = t.map_or(Ok(ENGINE_GRACE as i64), str::parse::<i64>).unwrap_or(ENGINE_GRACE as i64);
    let seconds = u64::try_from(seconds).map_or(24 * 3600, |seconds| seconds.min(24 * 3600));
    Duration::from_secs(seconds + LATE)
}

/// Whether a program that gets this signal mostly ends: no signal is SIGKILL, and so is what cannot be caught.
pub fn is_stop_signal(signal: Option<&str>) -> bool {
    let signal = signal.unwrap_or_default().to_ascii_uppercase();
    let name = signal.strip_prefix("SIG").unwrap_or(&signal);
    matches!(name, "" | "KILL" | "9" | "TERM" | "15" | "INT" | "2" | "QUIT" | "3")
}

/// Containers that should have stopped long ago and still run take connections again.
pub fn revive(containers: &Containers) {
    let now = Instant::now();
    for (id, entry) in containers.book.all() {
        if entry.draining.is_some_and(|until| until <= now) {
            info!(container = short(&id), "still runs, and takes connections again");
            publish::update(containers, &id, |entry| entry.draining = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 0500200A:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   3: 0500200A:1F91 0600200A:1F90 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st
   0: 00000000000000000000000000000000:0051 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:0052 00000000000000000000000000000000:0000 0A 00000000:00000000
";

    #[test]
    fn who_listens_at_the_wire_s_address_serves() {
        let udp = "  sl\n 0: 00000000:0035 00000000:0000 07 00000000:00000000\n".to_owned();
        let sockets = Sockets { tcp: [TCP.to_owned(), TCP6.to_owned()], udp: [udp, String::new()] };
        let listen = |port, protocol| sockets.listen([10, 32, 0, 5].into(), (port, protocol));
        for port in [0x50, 0x51, 8080] {
            assert!(listen(port, Protocol::Tcp), "{port}");
        }
        for port in [0x1538, 0x52, 8081, 0x35] {
            assert!(!listen(port, Protocol::Tcp), "{port}");
        }
        assert!(listen(53, Protocol::Udp) && !listen(0x50, Protocol::Udp));
    }
}
