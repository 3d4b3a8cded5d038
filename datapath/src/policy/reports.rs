//! Reports of refusals between hosts: the caller's host refuses, and the operator of the called container's host wants to see it.
//!
//! A report is a letter ([`crate::letter`]); a host of an earlier version closes the connection unread. Must never be trusted beyond its purpose: a host reports on its own containers, in addresses and numbers. Names
//! are the reader's own.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use selvedge_cluster::view::PeerView;
use selvedge_netsetup::policy::{Call, Refusal, Rule};
use tokio::time::{Instant, timeout};

use crate::letter;

/// The first line: what it is, and its version.
const HEAD: &str = "selvedge refused 1\n";
/// How long sending a report may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// At most so many kinds of calls in a report.
const LINES: usize = 500;
/// When to repeat a report: the reader may be a new worker.
const AGAIN: Duration = Duration::from_secs(30);

/// A report to be sent.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) host: String,
    to: SocketAddr,
    text: String,
}

/// A line of a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) refusal: Refusal,
    /// Within the last day.
    pub(super) packets: u64,
    /// Since the last report.
    pub(super) new: u64,
}

/// What was last reported to each host, and when.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Counted before this worker began, so probably reported by an earlier one.
    earlier: HashMap<Refusal, u64>,
    hosts: HashMap<String, (HashMap<Refusal, u64>, Instant)>,
}

impl Told {
    /// Takes the counts from before this worker: they are not new.
    pub(super) fn begin(&mut self, refused: HashMap<Refusal, u64>) {
        self.earlier = refused;
    }

    /// The reports that are due now.
    pub(super) fn due(&mut self, refused: &HashMap<Refusal, u64>, peers: &[PeerView]) -> Vec<Report> {
        self.hosts.retain(|host, _| peers.iter().any(|peer| peer.name == *host));
        peers.iter().filter_map(|peer| self.due_to(peer, refused)).collect()
    }

    fn due_to(&mut self, peer: &PeerView, refused: &HashMap<Refusal, u64>) -> Option<Report> {
        let info = peer.info.as_ref().filter(|_| peer.alive)?;
        let concerns = |(refusal, _): &(&Refusal, &u64)| refusal.call.is_some() && concerns(peer, refusal);
        let now: HashMap<Refusal, u64> =
            refused.iter().filter(concerns).map(|(refusal, packets)| (refusal.clone(), *packets)).collect();
        let known = self.hosts.get(&peer.name);
        let is_due = match known {
            None => !now.is_empty(),
            Some((last, at)) => *last != now || (!now.is_empty() && at.elapsed() >= AGAIN),
        };
        if !is_due {
            return None;
        }
        let text = write(&now, known.map_or(&self.earlier, |(last, _)| last));
        self.hosts.insert(peer.name.clone(), (now, Instant::now()));
        Some(Report { host: peer.name.clone(), to: SocketAddr::new(info.address, info.port), text })
    }

    /// A report was not delivered: the next one is due at once.
    pub(super) fn forget(&mut self, host: &str) {
        self.hosts.remove(host);
    }
}

/// Whether one of the two ends is a container of the peer's.
pub(super) fn concerns(peer: &PeerView, refusal: &Refusal) -> bool {
    [refusal.from, refusal.to].into_iter().any(|end| is_of(peer, end))
}

/// The IPv6 address of a container ends in its IPv4 address.
fn is_of(peer: &PeerView, address: IpAddr) -> bool {
    let four = match address {
        IpAddr::V4(four) => four,
        IpAddr::V6(six) => {
            let [.., a, b, c, d] = six.octets();
            Ipv4Addr::new(a, b, c, d)
        }
    };
    peer.blocks.iter().any(|block| block.contains(&four)) || peer.strays.contains(&four)
}

/// The busiest ones, each with its increase.
fn write(refused: &HashMap<Refusal, u64>, before: &HashMap<Refusal, u64>) -> String {
    let mut busiest: Vec<(&Refusal, &u64)> = refused.iter().collect();
    busiest.sort_by_key(|(_, packets)| std::cmp::Reverse(**packets));
    let line = |(refusal, packets): &(&Refusal, &u64)| {
        line(refusal, **packets, packets.saturating_sub(*before.get(*refusal).unwrap_or(&0)))
    };
    HEAD.to_owned() + &busiest.iter().take(LINES).filter_map(line).collect::<String>()
}

fn line(Refusal { from, to, call }: &Refusal, packets: u64, new: u64) -> Option<String> {
    let Call { protocol, port, rule } = call.as_ref()?;
    let (port, rule) = (port.unwrap_or(0), rule.number());
    Some(format!("{from} {to} {protocol} {port} {rule} {packets} {new}\n"))
}

/// Parses a report, if it is one; skips lines that it does not understand.
pub(super) fn parse(text: &str) -> Option<Vec<Heard>> {
    let lines = text.strip_prefix(HEAD)?.lines().take(LINES);
    Some(lines.filter_map(parse_line).collect())
}

fn parse_line(line: &str) -> Option<Heard> {
    let words: Vec<&str> = line.split(' ').collect();
    let [from, to, protocol, port, rule, packets, new] = words[..] else { return None };
    let is_word = protocol.len() <= 16 && protocol.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let rule: u32 = rule.parse().ok()?;
    let call = Call {
        protocol: is_word.then(|| protocol.to_owned())?,
        port: Some(port.parse().ok()?).filter(|port| *port != 0),
        rule: Rule::ALL.into_iter().find(|known| known.number() == rule)?,
    };
    let refusal = Refusal { from: from.parse().ok()?, to: to.parse().ok()?, call: Some(call) };
    Some(Heard { refusal, packets: packets.parse().ok()?, new: new.parse().ok()? })
}

impl Report {
    /// Sends it from our own address, by which the peer recognises us.
    pub(super) async fn send(&self, own: IpAddr) -> io::Result<()> {
        let sent = async { letter::send(&mut letter::connect(own, self.to).await?, &self.text).await };
        timeout(PATIENCE, sent).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(from: &str, to: &str, port: Option<u16>) -> Refusal {
        let call = Call { protocol: "tcp".to_owned(), port, rule: Rule::Grants };
        Refusal { from: from.parse().unwrap(), to: to.parse().unwrap(), call: Some(call) }
    }

    fn peer(name: &str, block: &str) -> PeerView {
        let info = selvedge_cluster::key::HostInfo {
            address: "192.0.2.1".parse().unwrap(),
            port: 6785,
            version: String::new(),
            datapath: String::new(),
            policy: String::new(),
            heeds_stops: true,
        };
        PeerView {
            name: name.to_owned(),
            info: Some(info),
            registered: true,
            alive: true,
            blocks: vec![block.parse().unwrap()],
            strays: Vec::new(),
            containers: 0,
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let (one, other) =
            (refusal("10.32.0.1", "10.32.1.1", Some(80)), refusal("fd00::a20:1", "fd00::a20:101", None));
        let refused = HashMap::from([(one.clone(), 3), (other.clone(), 1)]);
        let text = write(&refused, &HashMap::from([(one.clone(), 2)]));
        assert_eq!(
            text,
            "selvedge refused 1\n10.32.0.1 10.32.1.1 tcp 80 1 3 1\nfd00::a20:1 fd00::a20:101 tcp 0 1 1 1\n"
        );
        let heard = |refusal, packets, new| Heard { refusal, packets, new };
        assert_eq!(parse(&text), Some(vec![heard(one, 3, 1), heard(other, 1, 1)]));
        for odd in ["", "GET / HTTP/1.1\r\n", "selvedge refused 2\n"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        for odd in
            ["x", "10.32.0.1 10.32.1.1 t\tp 80 1 3 1", "10.32.0.1 10.32.1.1 tcp 80 9 3 1", "a b tcp 80 1 3 1"]
        {
            assert_eq!(parse(&format!("{HEAD}{odd}\n")), Some(Vec::new()), "{odd}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_hears_of_its_own_and_what_is_new() {
        let peers = [peer("a", "10.32.1.0/24"), peer("b", "10.32.2.0/24")];
        let (one, mut told) = (refusal("10.32.0.1", "10.32.1.1", Some(80)), Told::default());
        told.begin(HashMap::from([(one.clone(), 2)]));
        let mut refused = HashMap::from([(one.clone(), 3)]);
        let mut said = |refused: &HashMap<Refusal, u64>| -> Vec<(String, Vec<u64>)> {
            let due = told.due(refused, &peers).into_iter();
            let news = |text: &str| parse(text).unwrap().iter().map(|heard| heard.new).collect();
            due.map(|report| (report.host, news(&report.text))).collect()
        };
        assert_eq!(said(&refused), [("a".to_owned(), vec![1])]);
        assert_eq!(said(&refused), []);
        tokio::time::advance(AGAIN).await;
        assert_eq!(said(&refused), [("a".to_owned(), vec![0])], "its worker may be another one");
        refused.insert(one, 7);
        assert_eq!(said(&refused), [("a".to_owned(), vec![4])]);
        refused.clear();
        assert_eq!(said(&refused), [("a".to_owned(), vec![])], "all is over");
        tokio::time::advance(AGAIN).await;
        assert_eq!(said(&refused), []);
    }
}
