//! A machine whose first process is a real systemd, in namespaces: with a real dockerd and Selvedge as its services.
//!
//! It must never reach the systemd, the cgroups or the units of the machine that the tests run on.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::docker::Docker;
use crate::engine::make_image;
use crate::host::Host;
use crate::selvedge::binary;
use crate::shell::{Output, run};
use crate::wait::until;

/// A machine. It ends when dropped, and with the host's reaper.
#[derive(Debug)]
pub struct Machine {
    /// systemd's process, as seen from outside.
    pub init: u32,
    /// The directory of the host it is on.
    dir: PathBuf,
    outer: Child,
}

// The outer shell does not name the directory on its command line: the reaper ends what does, and this one tidies up
// after that. Cgroups of its own keep two machines apart.
const OUTER: &str = r#"
trap '' INT TERM HUP
cgroups=$(awk '$(NF-2) == "cgroup2" {print $5; exit}' /proc/self/mountinfo)
[ -n "$cgroups" ] || { echo "no cgroup2 is mounted here: systemd cannot run"; exit 1; }
cgroups=$cgroups/$NAME
mkdir -p "$cgroups" || exit 1
sh -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' sh "$cgroups" \
    nsenter --net=/run/netns/$NETNS unshare --pid --mount --cgroup --ipc --uts --fork --kill-child \
    sh -ec "$WORLD" world $DIR
for try in 1 2 3 4 5 6 7 8 9 10; do
    find "$cgroups" -depth -type d -exec rmdir {} + 2>/dev/null
    [ -e "$cgroups" ] || break
    sleep 0.2
done
"#;

// No units but ours, no generators: what the machine's own systemd would do to sysctls and devices must not happen.
const WORLD: &str = r#"
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=$1/units SYSTEMD_GENERATOR_PATH=$1/none SYSTEMD_LOG_TARGET=console \
    /usr/lib/systemd/systemd --system --unit=basic.target
"#;

const TARGETS: [&str; 6] = ["sysinit", "basic", "sockets", "shutdown", "multi-user", "network-online"];
const START: Duration = Duration::from_secs(30);

impl Machine {
    /// A machine that has come up, with `docker.service` running and the image `busybox` in it, and
    /// `selvedge.socket` and `selvedge.service` of packaging/systemd, not started.
    ///
    /// # Panics
    /// When it cannot be had.
    #[must_use]
    pub fn boot(host: &Host) -> Self {
        let dir = host.dir.clone();
        write_units(&dir);
        let log = std::fs::File::create(dir.join("systemd.log")).expect("a file can be made");
        let name = dir.file_name().expect("a name");
        let mut command = Command::new("sh");
        command.args(["-c", OUTER]).env("WORLD", WORLD).env("NAME", name).env("DIR", &dir);
        command.env("NETNS", &host.netns).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let outer = command.spawn().expect("sh can be started");
        let what = format!("systemd as the first process (log: {})", dir.join("systemd.log").display());
        let init = until(&what, START, || first_process(outer.id()));
        let machine = Self { init, dir, outer };
        until("systemd has come up", START, || {
            let state = machine.run("systemctl", &["is-system-running"]).stdout;
            (state.trim() == "running").then_some(())
        });
        machine.systemctl(&["start", "docker.service"]).ok();
        let image = make_image(&machine.dir);
        let import = ["import", "-c", "CMD [\"sh\"]", image.to_str().expect("a plain path"), "busybox"];
        machine.docker_at(&machine.dir.join("engine.sock")).run(&import).ok();
        machine
    }

    /// A command in the machine.
    #[must_use]
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.init.to_string());
        command.args(["--pid", "--mount", "--net", "--cgroup", "--ipc", "--uts", program]).args(arguments);
        command
    }

    /// Runs a command in the machine to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Output {
        run(&mut self.command(program, arguments), b"")
    }

    /// Runs systemctl.
    pub fn systemctl(&self, arguments: &[&str]) -> Output {
        self.run("systemctl", arguments)
    }

    /// A property of a unit.
    #[must_use]
    pub fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "-p", name, "--value", unit]).ok().to_owned()
    }

    /// The docker CLI against a socket in the machine.
    #[must_use]
    pub fn docker_at(&self, socket: &Path) -> Docker {
        Docker::beside(socket, self.init)
    }

    /// A path in the machine, as it is reached from outside.
    #[must_use]
    pub fn outside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Where the binary lies that the machine's Selvedge is started from.
    #[must_use]
    pub fn binary(&self) -> PathBuf {
        self.dir.join("selvedge")
    }

    /// Puts another program where the binary is, by rename.
    ///
    /// # Panics
    /// When it cannot.
    pub fn install(&self, program: &Path) {
        let new = self.dir.join("selvedge.new");
        std::fs::copy(program, &new).expect("it can be copied");
        std::fs::rename(&new, self.binary()).expect("it can be renamed");
    }

    /// What Selvedge has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("selvedge.log")).unwrap_or_default()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let systemd = std::fs::read_to_string(self.dir.join("systemd.log")).unwrap_or_default();
            eprintln!("--- Selvedge's log\n{}\n--- systemd's log\n{systemd}", self.log());
        }
        // The kernel ends all others of a pid namespace with its first process.
        let init = nix::unistd::Pid::from_raw(i32::try_from(self.init).unwrap_or(0));
        let _ = nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGKILL);
        let _ = self.outer.wait();
    }
}

/// systemd, at the end of the chain of first children.
fn first_process(outer: u32) -> Option<u32> {
    let mut pid = outer;
    loop {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        if comm.trim() == "systemd" {
            return Some(pid);
        }
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        pid = children.split_whitespace().next()?.parse().ok()?;
    }
}

fn write_units(dir: &Path) {
    let units = dir.join("units");
    std::fs::create_dir_all(&units).expect("a directory can be made");
    for target in TARGETS {
        let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        std::fs::write(units.join(format!("{target}.target")), text).expect("a file can be made");
    }
    std::fs::write(dir.join("daemon.json"), "{}").expect("a file can be made");
    let place = dir.display();
    let docker = format!(
        "[Service]\nType=notify\nExecStart=/usr/sbin/dockerd --data-root {place}/data --exec-root {place}/exec \
         -p {place}/dockerd.pid -H unix://{place}/engine.sock --config-file {place}/daemon.json\n\
         Delegate=yes\nKillMode=process\nLimitNOFILE=65536\n\
         StandardOutput=append:{place}/dockerd.log\nStandardError=append:{place}/dockerd.log\n"
    );
    std::fs::write(units.join("docker.service"), docker).expect("a file can be made");
    std::fs::copy(binary(), dir.join("selvedge")).expect("the binary can be copied");
    for unit in ["selvedge.socket", "selvedge.service"] {
        std::fs::write(units.join(unit), unit_here(dir, unit)).expect("a file can be made");
    }
}

/// A unit of packaging/systemd with the paths of this laboratory.
///
/// # Panics
/// When it does not name the paths that are to be replaced.
#[must_use]
pub fn unit_here(dir: &Path, unit: &str) -> String {
    let packaging =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("packaging/systemd");
    let mut text = std::fs::read_to_string(packaging.join(unit)).expect("packaging/systemd has it");
    if unit.ends_with(".service") {
        let place = dir.display();
        let mut replace = |what: &str, by: &str| {
            assert!(text.contains(what), "{unit} has no {what}");
            text = text.replace(what, by);
        };
        let settings = format!("--engine unix://{place}/engine.sock --wait-path {place}/wait");
        replace("--config /etc/selvedge/selvedge.toml", &settings);
        replace("=/usr/local/bin/selvedge ", &format!("={place}/selvedge "));
        text.push_str(&format!(
            "[Service]\nStandardOutput=append:{place}/selvedge.log\nStandardError=append:{place}/selvedge.log\n"
        ));
    }
    text
}
