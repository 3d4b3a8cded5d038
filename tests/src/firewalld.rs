//! A real firewalld in a test host, with a D-Bus of its own, so that nobody speaks with the machine's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::host::Host;
use crate::shell::{Output, run};
use crate::wait::until_true;

/// By this variable everybody finds the system's D-Bus.
pub const BUS: &str = "DBUS_SYSTEM_BUS_ADDRESS";

const START: Duration = Duration::from_secs(20);

/// A running firewalld. Ends with it, and takes its rules along.
#[derive(Debug)]
pub struct Firewalld {
    bus: PathBuf,
    children: Vec<Child>,
}

/// Where a host's D-Bus is, if it has one.
#[must_use]
pub fn address(host: &Path) -> String {
    format!("unix:path={}", host.join("bus").display())
}

impl Firewalld {
    /// Starts one with Debian's own settings (the zone `public` for everything) and the ports open by which Selvedges
    /// talk to each other.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(host: &Host) -> Self {
        let (settings, bus) = (host.path("firewalld"), host.path("bus"));
        std::fs::create_dir_all(settings.join("zones")).expect("a directory can be made");
        std::fs::write(settings.join("zones/public.xml"), PUBLIC).expect("a file can be made");
        std::fs::write(host.path("bus.conf"), BUS_CONF.replace("BUS", &bus.display().to_string()))
            .expect("a file can be made");
        let daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--config-file"])
            .arg(host.path("bus.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon is installed (scripts/test)");
        let mut firewalld = Self { bus: host.dir.clone(), children: vec![daemon] };
        until_true("the bus is there", START, || bus.exists());
        let mut command = host.command("firewalld");
        command.args(["--nofork", "--nopid", "--system-config"]).arg(settings);
        command.arg("--log-file").arg(host.path("firewalld.log"));
        let path = std::env::var("PATH").unwrap_or_default();
        command.env(BUS, address(&host.dir)).env("PATH", format!("{path}:/usr/sbin")).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        firewalld.children.push(child.expect("firewalld is installed (scripts/test)"));
        until_true("firewalld runs", START, || firewalld.ask(&["--state"]).code == 0);
        firewalld
    }

    /// `firewall-cmd`.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        run(Command::new("firewall-cmd").args(arguments).env(BUS, address(&self.bus)), b"")
    }

    /// Nobody can talk to it any more: its D-Bus is gone. Its rules stay.
    pub fn mute(&self) {
        let bus = self.bus.join("bus");
        std::fs::rename(&bus, self.bus.join("gone")).expect("it is there");
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        // The bus goes last.
        for child in self.children.iter_mut().rev() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

const PUBLIC: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<zone>
  <short>Public</short>
  <service name="ssh"/>
  <port port="6785" protocol="tcp"/>
  <port port="4789" protocol="udp"/>
  <forward/>
</zone>
"#;

const BUS_CONF: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=BUS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="signal"/>
    <allow receive_type="error"/>
  </policy>
</busconfig>
"#;
