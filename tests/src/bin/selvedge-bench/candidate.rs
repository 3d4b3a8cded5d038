//! Those that are measured: each is a socket in front of an upstream, and the processes whose time counts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::shell::run;

use crate::Binaries;

/// One that is measured. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// What the table calls it.
    pub(crate) name: &'static str,
    /// Where clients connect.
    pub(crate) socket: PathBuf,
    /// The processes that do its work.
    pub(crate) pids: Vec<u32>,
    child: Option<Child>,
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawn(command: &mut Command) -> anyhow::Result<Child> {
    let told = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(told)
}

fn until_up(socket: &Path) -> anyhow::Result<()> {
    for _ in 0..300 {
        if http::get(socket, "/_ping").is_ok_and(|answer| answer.status == 200) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("nobody answers at {}", socket.display())
}

impl Candidate {
    /// The upstream itself.
    pub(crate) fn direct(upstream: &Path) -> Self {
        Self { name: "direct", socket: upstream.to_owned(), pids: Vec::new(), child: None }
    }

    /// The fast upstream, as a process of its own.
    pub(crate) fn upstream(host: &Host) -> anyhow::Result<Self> {
        let socket = host.path("up.sock");
        let child = spawn(Command::new(std::env::current_exe()?).arg("upstream").arg(&socket))?;
        until_up(&socket)?;
        Ok(Self { name: "upstream", socket, pids: vec![child.id()], child: Some(child) })
    }

    /// A relay without a thought: `copy` or `splice`.
    pub(crate) fn relay(
        host: &Host,
        binaries: &Binaries,
        mode: &'static str,
        upstream: &Path,
    ) -> anyhow::Result<Self> {
        let socket = host.path(&format!("{mode}.sock"));
        let child = spawn(Command::new(&binaries.relay).arg(mode).arg(&socket).arg(upstream))?;
        let name = if mode == "copy" { "relay" } else { "splice relay" };
        std::thread::sleep(Duration::from_millis(200));
        Ok(Self { name, socket, pids: vec![child.id()], child: Some(child) })
    }

    /// HAProxy, unix to unix, with keep-alive on both sides.
    pub(crate) fn haproxy(host: &Host, upstream: &Path) -> anyhow::Result<Self> {
        let (socket, config) = (host.path("haproxy.sock"), host.path("haproxy.cfg"));
        let text = format!(
            "global\n maxconn 20000\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n timeout tunnel 1h\n option http-keep-alive\n http-reuse always\nfrontend f\n bind unix@{}\n default_backend b\nbackend b\n server s unix@{}\n",
            socket.display(),
            upstream.display()
        );
        std::fs::write(&config, text)?;
        let child = spawn(Command::new("/usr/sbin/haproxy").arg("-db").arg("-f").arg(&config))?;
        until_up(&socket)?;
        Ok(Self { name: "HAProxy", socket, pids: vec![child.id()], child: Some(child) })
    }

    /// Selvedge, in a network namespace of its own.
    pub(crate) fn selvedge(host: &Host, binaries: &Binaries, upstream: &Path) -> anyhow::Result<Self> {
        let runtime = host.path("bench-run");
        let socket = runtime.join("docker.sock");
        let mut command = host.command(&binaries.selvedge);
        command.arg("run").arg("--runtime-dir").arg(&runtime).arg("--wait-path").arg(host.path("wait"));
        command.arg("--engine").arg(format!("unix://{}", upstream.display())).args(["--log", "warn"]);
        let child = spawn(&mut command)?;
        until_up(&socket)?;
        let mut ask = Command::new(&binaries.selvedge);
        ask.args(["status", "--json", "--runtime-dir"]).arg(&runtime);
        let status: serde_json::Value =
            serde_json::from_str(&run(&mut ask, b"").stdout).context("no status")?;
        let pid = |pointer: &str| {
            status.pointer(pointer).and_then(serde_json::Value::as_u64).map_or(0, |pid| pid as u32)
        };
        let pids = vec![pid("/keeper/pid"), pid("/worker/pid")];
        Ok(Self { name: "Selvedge", socket, pids, child: Some(child) })
    }
}
