//! Docker's firewall, opened for traffic between containers' addresses.
//!
//! dockerd sets the policy of FORWARD to DROP and leaves the chain DOCKER-USER to others. We write our rules there with
//! the iptables command, the tool that dockerd itself uses: so the legacy and the nft variant agree, and the tables
//! stay readable for both. Must never create a chain, nor touch a host whose engine has none.

use std::io;
use std::process::Output;

use ipnet::IpNet;
use tracing::{debug, info};

use crate::error::Error;
use crate::program;

pub(super) const CHAIN: &str = "DOCKER-USER";
pub(super) const IPTABLES: &str = "iptables";
/// The same for IPv6, where Docker has a chain of that name if it does IPv6.
const IP6TABLES: &str = "ip6tables";
/// How long iptables waits for its own lock.
const LOCK_SECONDS: &str = "5";
/// The rule or the chain does not exist.
const EXIT_NOT_FOUND: i32 = 1;
/// The kernel has no iptables that this command can drive.
const EXIT_UNSUPPORTED: i32 = 3;

/// Adds the missing rules; returns the number of rules written. Blocks for some milliseconds.
///
/// Two rules, for packets from our wires and for packets to them. Both name the pool as source and as destination:
/// nothing else is opened, and another Selvedge's pool has a rule of its own.
pub(crate) fn open_for(pool: IpNet) -> Result<u64, Error> {
    let program = if pool.addr().is_ipv4() { IPTABLES } else { IP6TABLES };
    let pool = pool.trunc().to_string();
    let mut written = 0;
    for direction in ["-i", "-o"] {
        let rule = [direction, "sv+", "-s", &pool, "-d", &pool, "-j", "ACCEPT"];
        if has(program, &rule)? {
            continue;
        }
        if !has_chain(program)? {
            debug!(program, chain = CHAIN, "no such chain: leaving the host's firewall alone");
            return Ok(written);
        }
        run(program, &[&["-I", CHAIN], rule.as_slice()].concat(), &[0])?;
        info!(program, chain = CHAIN, rule = rule.join(" "), "firewall rule written");
        written += 1;
    }
    Ok(written)
}

fn has(program: &str, rule: &[&str]) -> Result<bool, Error> {
    run(program, &[&["-C", CHAIN], rule].concat(), &[0, EXIT_NOT_FOUND, EXIT_UNSUPPORTED])
        .map(|code| code == Some(0))
}

fn has_chain(program: &str) -> Result<bool, Error> {
    run(program, &["-S", CHAIN], &[0, EXIT_NOT_FOUND, EXIT_UNSUPPORTED]).map(|code| code == Some(0))
}

/// The exit code, if it is one of the expected ones; `None` where there is no iptables.
fn run(program: &str, arguments: &[&str], fine: &[i32]) -> Result<Option<i32>, Error> {
    let told = |message: String| Error::Firewall {
        program: program.to_owned(),
        arguments: arguments.join(" "),
        message,
    };
    match call(program, arguments) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told(error.to_string())),
        Ok(output) => match output.status.code() {
            Some(code) if fine.contains(&code) => Ok(Some(code)),
            _ => Err(told(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        },
    }
}

/// Runs iptables, which waits for its own lock.
pub(super) fn call(program: &str, arguments: &[&str]) -> io::Result<Output> {
    program::run(program, &[&["-w", LOCK_SECONDS], arguments].concat())
}
