//! Serves any number of made-up names on a loopback port until its standard input ends: for dig, and for benchmarks.
//!
//! `serve ADDRESS:PORT NAMES [RESOLV_CONF]`: `hN.bench.selvedge.internal` has the address 10.32.0.0 + N + 1, and
//! `all.selvedge.internal` the first 100. Their IPv6 addresses are in fd00:5e:1::/64. It must never be anything but a tool for the developer.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use selvedge_dns::{Server, Settings};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;
use selvedge_registry::table::Table;

type Failure = Box<dyn std::error::Error>;

fn table(names: u32) -> Result<Table, Failure> {
    let mut table = Table::new(Name::parse("selvedge.internal")?).with_pool6("fd00:5e:1::/64".parse()?);
    let base = u32::from(Ipv4Addr::new(10, 32, 0, 1));
    for number in 0..names {
        let mut own = vec![Name::parse(&format!("h{number}.bench"))?];
        if number < 100 {
            own.push(Name::parse("all")?);
        }
        let address = Ipv4Addr::from(base + number);
        table.put(Record::new(number.to_string(), address, own));
    }
    Ok(table)
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, names, rest @ ..] = &arguments[..] else {
        return Err("usage: serve ADDRESS:PORT NAMES [RESOLV_CONF]".into());
    };
    let listen: SocketAddr = listen.parse()?;
    let table = TableWriter::new(table(names.parse()?)?);
    let mut settings = Settings::new(table.reader(), listen, "10.32.0.0/12".parse()?);
    // Ask no server outside this machine unless told to.
    settings.resolv_conf = rest.first().map_or("/dev/null", String::as_str).into();
    let server = Server::spawn(settings, vec![UdpSocket::bind(listen)?], vec![TcpListener::bind(listen)?])?;
    println!("{names} names on {listen}, process {}", std::process::id());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    println!("{:?}", server.stats());
    server.stop();
    Ok(())
}
