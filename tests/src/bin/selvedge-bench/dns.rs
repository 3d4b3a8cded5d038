//! Answers about names that are known: Selvedge's DNS server beside unbound, dnsmasq and a UDP loop, on loopback.
//!
//! Nobody forwards here: no server may ask another one.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use selvedge_dns::{Server, Settings};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;
use selvedge_registry::table::Table;
use selvedge_tests::host::Host;

use crate::Effort;
use crate::candidate::Started;
use crate::dns_load::{answers, name, queries, turn};
use crate::report::{Aim, Report, SELVEDGE, Scale, again};

const FLOOR: &str = "UDP loop";
const UNBOUND: &str = "unbound";
const DNSMASQ: &str = "dnsmasq";

/// One that answers.
struct Candidate {
    name: &'static str,
    address: SocketAddr,
    started: Started,
}

/// Measures with 10, 1,000 and 100,000 names.
///
/// # Errors
/// A server does not start, or answers wrongly.
pub(crate) fn measure(effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    for count in [10, 1_000, 100_000] {
        let host = Host::new();
        let candidates =
            [floor(&host)?, selvedge(&host, count)?, unbound(&host, count)?, dnsmasq(&host, count)?];
        let queries = queries(count);
        for candidate in &candidates {
            candidate.until_up(&queries[0])?;
        }
        for round in 1..=effort.rounds {
            eprintln!("DNS, {count} names: round {round} of {}", effort.rounds);
            let turns = candidates.iter().map(|candidate| (candidate, candidate.name.to_owned()));
            for (candidate, name) in turns.chain([(&candidates[0], again(FLOOR))]) {
                let turn = turn(candidate.address, candidate.started.pid(), &queries, effort.slice);
                let turn = turn.with_context(|| format!("{name}, {count} names"))?;
                report.note(&cpu_scale(count), &name, turn.cpu);
                report.note(&rate_scale(count), &name, turn.rate);
            }
        }
    }
    Ok(())
}

fn cpu_scale(count: u32) -> Scale {
    Scale {
        name: format!("DNS, {count} names: CPU per answer"),
        unit: "us",
        bases: &[FLOOR, UNBOUND],
        yardstick: FLOOR,
        aim: Some(Aim::AtMost(1.0, UNBOUND)),
    }
}

fn rate_scale(count: u32) -> Scale {
    let name = format!("DNS, {count} names: rate");
    Scale { name, unit: "answers/s", bases: &[FLOOR, UNBOUND], yardstick: FLOOR, aim: None }
}

impl Candidate {
    fn until_up(&self, query: &[u8]) -> anyhow::Result<()> {
        for _ in 0..300 {
            if answers(self.address, query) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{} does not answer at {}", self.name, self.address)
    }
}

/// A port of the loopback that nobody has.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn address_of(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 32, 0, 1)) + number)
}

fn floor(_: &Host) -> anyhow::Result<Candidate> {
    let address = free()?;
    let started = Started::role(&["responder".as_ref(), address.to_string().as_ref()])?;
    Ok(Candidate { name: FLOOR, address, started })
}

fn selvedge(_: &Host, count: u32) -> anyhow::Result<Candidate> {
    let address = free()?;
    let words = ["names".to_owned(), address.to_string(), count.to_string()];
    let started = Started::role(&words.each_ref().map(AsRef::as_ref))?;
    Ok(Candidate { name: SELVEDGE, address, started })
}

fn unbound(host: &Host, count: u32) -> anyhow::Result<Candidate> {
    let address = free()?;
    let mut text = format!(
        "server:\n interface: 127.0.0.1\n port: {}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
         num-threads: 1\n use-syslog: no\n pidfile: \"\"\n directory: \"{}\"\n module-config: \"iterator\"\n \
         local-zone: \"bench.selvedge.internal.\" static\n",
        address.port(),
        host.dir.display()
    );
    for number in 0..count {
        writeln!(text, " local-data: \"{}. 60 IN A {}\"", name(number), address_of(number))?;
    }
    let config = host.path("unbound.conf");
    std::fs::write(&config, text)?;
    let started = Started::new(Command::new("/usr/sbin/unbound").arg("-d").arg("-c").arg(&config))?;
    Ok(Candidate { name: UNBOUND, address, started })
}

fn dnsmasq(host: &Host, count: u32) -> anyhow::Result<Candidate> {
    let address = free()?;
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "{} {}", address_of(number), name(number))?;
    }
    let hosts = host.path("dnsmasq.hosts");
    std::fs::write(&hosts, text)?;
    let mut command = Command::new("/usr/sbin/dnsmasq");
    command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"]);
    command.args(["--listen-address=127.0.0.1", "--user=root", "--pid-file=", "--local-ttl=60"]);
    command.arg(format!("--addn-hosts={}", hosts.display())).arg(format!("--port={}", address.port()));
    let started = Started::new(&mut command)?;
    Ok(Candidate { name: DNSMASQ, address, started })
}

/// Selvedge's DNS server alone, with made-up names. Serves for ever.
///
/// # Errors
/// The address cannot be bound.
pub(crate) fn serve(address: SocketAddr, count: u32) -> anyhow::Result<()> {
    let mut table = Table::new(Name::parse("selvedge.internal")?);
    for number in 0..count {
        let names = vec![Name::parse(&format!("h{number}.bench"))?];
        let record = Record::new(number.to_string(), address_of(number), names);
        table.put(record);
    }
    let mut settings = Settings::new(TableWriter::new(table).reader(), address, "10.32.0.0/12".parse()?);
    // No server of the machine is asked.
    settings.resolv_conf = "/dev/null".into();
    let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
    let server = Server::spawn(settings, vec![udp], vec![tcp])?;
    while server.is_running() {
        std::thread::park();
    }
    bail!("the DNS server has ended")
}
