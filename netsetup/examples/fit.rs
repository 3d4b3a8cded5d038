//! Says what this host lacks for wires, as `selvedge check` does.
//!
//! `cargo run -p selvedge-netsetup --example fit`
//! Must never change anything of the host's network.

use std::net::Ipv4Addr;

use selvedge_netsetup::{Settings, preflight};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let settings = Settings {
        pool: "10.32.0.0/12".parse()?,
        gateway: Ipv4Addr::new(169, 254, 1, 1),
        dns: Ipv4Addr::new(169, 254, 1, 1),
        group: 1,
        mtu: None,
        underlay: None,
        pool6: None,
        encapsulated: false,
    };
    let findings = preflight(&settings);
    if findings.is_empty() {
        println!("this host lacks nothing");
    }
    for finding in findings {
        println!("{:?}: {}", finding.severity, finding.message);
    }
    Ok(())
}
