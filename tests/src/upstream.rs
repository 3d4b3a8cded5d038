//! A DNS server that others have: a real dnsmasq in a test host.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::host::Host;
use crate::wait::until_true;

/// A running dnsmasq that knows one name. Ends with it.
#[derive(Debug)]
pub struct Upstream(Child);

impl Upstream {
    /// Starts one at an address that the host gets for it. It has all of `zone`, and in it but this name.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &Host, listen: &str, zone: &str, (name, address): (&str, &str)) -> Self {
        host.sh(&format!("ip addr add {listen}/32 dev lo")).ok();
        let mut command = host.command("dnsmasq");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin"));
        command.args([
            "--keep-in-foreground",
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ]);
        command.args(["--user=root", "--pid-file", "--local-ttl=30", "--conf-file=/dev/null"]);
        command.args([&format!("--listen-address={listen}"), &format!("--local=/{zone}/")]);
        command.arg(format!("--address=/{name}/{address}"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("dnsmasq is installed");
        let question = format!("dig @{listen} +time=1 +tries=1 +short {name}");
        let up = || host.sh(&question).stdout.contains(address);
        until_true("dnsmasq answers", Duration::from_secs(10), up);
        Self(child)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
