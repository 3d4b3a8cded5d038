//! Sockets that systemd gives, what systemd is told, and what its verbs do to clients, under a real systemd.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::selvedge::{Selvedge, binary};
use selvedge_tests::shell::{Output, run, timed};
use selvedge_tests::systemd::{Machine, unit_here};
use selvedge_tests::wait::until_true;

const LIMIT: Duration = Duration::from_secs(30);

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).expect("the socket's file is there").ino()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// What is started and given sockets, and what is asked of it.
struct Started {
    child: Child,
    selvedge: Selvedge,
}

impl Started {
    fn spawn(host: &Host, engine: &Path, mut command: Command) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(host.path("selvedge.log"));
        let log = log.expect("a log can be made");
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let child = command.spawn().expect("it can be started");
        Self { child, selvedge: Selvedge::prepare(host, engine, &[]) }
    }

    fn stop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- Selvedge's log\n{}", self.selvedge.log());
        }
    }
}

fn arguments(host: &Host, engine: &Path) -> Vec<String> {
    let of = |name: &str| host.path(name).display().to_string();
    let engine = format!("unix://{}", engine.display());
    ["run", "--runtime-dir", &of("run"), "--engine", &engine, "--wait-path", &of("wait")]
        .map(str::to_owned)
        .to_vec()
}

/// `selvedge run` with one descriptor that is announced as systemd would.
fn given(host: &Host, engine: &Path, socket: impl Into<OwnedFd>, announced: &str) -> Command {
    let script = format!("exec 3<&0 </dev/null; export LISTEN_PID=$$ {announced}; exec \"$@\"");
    let mut command = host.command("sh");
    command.args(["-c", &script, "sh"]).arg(binary()).args(arguments(host, engine));
    command.stdin(Stdio::from(socket.into()));
    command
}

fn serves(socket: &Path) {
    until_true("it serves", LIMIT, || http::get(socket, "/_ping").is_ok_and(|answer| answer.status == 200));
}

#[test]
fn the_socket_that_systemd_holds_is_where_it_listens() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let path = host.path("given.sock");
    let mut command = host.command("systemd-socket-activate");
    command.arg("-l").arg(&path).arg("--fdname=api").arg(binary()).args(arguments(&host, &engine.socket));
    let mut started = Started::spawn(&host, &engine.socket, command);
    until_true("systemd-socket-activate listens", LIMIT, || path.exists());
    let first = inode(&path);
    // It is this call that starts Selvedge.
    let docker = Docker::new(&path);
    docker.run(&["run", "--rm", "busybox", "ip", "addr", "show", "selvedge0"]).ok();
    assert_eq!(started.selvedge.status()["listen"], serde_json::json!([path]));
    let pid = started.selvedge.status()["keeper"]["pid"].clone();
    for verb in [&["upgrade"][..], &["upgrade", "--keeper"], &["upgrade"], &["upgrade", "--keeper"]] {
        started.selvedge.ask(verb).ok();
        docker.run(&["ps"]).ok();
    }
    assert_eq!(started.selvedge.status()["keeper"]["pid"], pid);
    assert_eq!(started.selvedge.status()["listen"], serde_json::json!([path]));
    assert!(!started.selvedge.socket().exists(), "the default socket was made beside the given one");
    started.stop();
    assert_eq!(inode(&path), first, "the socket's file is not ours to touch");
}

#[test]
fn who_connects_while_it_is_stopped_is_served_by_the_next() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    // The default path; named as a socket unit without FileDescriptorName= is.
    let path = host.path("run/docker.sock");
    std::fs::create_dir_all(host.path("run")).expect("a directory can be made");
    let held = UnixListener::bind(&path).expect("it can be bound");
    let first = inode(&path);
    let start = || {
        let socket = held.try_clone().expect("a descriptor");
        let announced = "LISTEN_FDS=1 LISTEN_FDNAMES=selvedge.socket";
        Started::spawn(&host, &engine.socket, given(&host, &engine.socket, socket, announced))
    };
    let mut started = start();
    serves(&path);
    for _ in 0..3 {
        started.stop();
        let mut waiting = http::connect(&path).expect("it is still listened to");
        waiting
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            .expect("it is sent");
        started = start();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Docker::new(&path).run(&["ps"]).ok();
        assert_eq!(inode(&path), first);
    }
    // No child has what was for the keeper alone.
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", started.selvedge.worker()));
    assert!(!environment.expect("the worker runs").contains("LISTEN_"));
}

fn refused(host: &Host, socket: impl Into<OwnedFd>, announced: &str) -> String {
    let mut command = given(host, Path::new("/nonexistent"), socket, announced);
    // `run` has its own idea of stdin, which is the socket here.
    let output = command.output().expect("it can be started");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{announced}: {told}");
    assert_eq!(told.lines().count(), 1, "{announced}: {told}");
    assert!(!host.path("run/docker.sock").exists(), "{announced}: a socket was made all the same");
    told
}

#[test]
fn a_socket_that_is_no_api_socket_is_refused_in_one_line() {
    let host = Host::new();
    let path = host.path("other.sock");
    let other = UnixListener::bind(&path).expect("it can be bound");
    let other = || other.try_clone().expect("a descriptor");
    let told = refused(&host, other(), "LISTEN_FDS=1 LISTEN_FDNAMES=selvedge.socket");
    assert!(told.contains(&format!("selvedge.socket at {} is none of --listen", path.display())), "{told}");
    assert!(told.contains("FileDescriptorName=api"), "{told}");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let told = refused(&host, tcp, "LISTEN_FDS=1 LISTEN_FDNAMES=api");
    assert!(told.contains("api is not a listening unix stream socket"), "{told}");
    let datagram = UnixDatagram::bind(host.path("datagram.sock")).expect("it can be bound");
    refused(&host, datagram, "LISTEN_FDS=1 LISTEN_FDNAMES=api");
    refused(&host, other(), "LISTEN_FDS=2 LISTEN_FDNAMES=api");
    let told = refused(&host, other(), "LISTEN_FDS=many");
    assert!(told.contains("LISTEN_FDS=many"), "{told}");
    let told = refused(&host, other(), "LISTEN_FDS=7");
    assert!(told.contains("descriptor 4 (unknown) is not open"), "{told}");
    assert!(path.exists(), "the refused socket's file is not ours to touch");
}

#[test]
fn systemd_is_told_how_it_stands() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let heard = UnixDatagram::bind(host.path("notify.sock")).expect("it can be bound");
    heard.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let told = || {
        let mut buffer = [0; 4096];
        let read = heard.recv(&mut buffer).expect("something is said");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let mut command = host.command(binary());
    command.args(arguments(&host, &engine.socket)).env("NOTIFY_SOCKET", host.path("notify.sock"));
    let mut started = Started::spawn(&host, &engine.socket, command);
    assert_eq!(told(), "READY=1");
    assert_eq!(http::get(&started.selvedge.socket(), "/_ping").expect("it listens").status, 200);
    let reload = || {
        let line = told();
        let since = line.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("as sd_notify(3) wants it");
        assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{line}");
        assert_eq!(told(), "READY=1");
    };
    started.selvedge.ask(&["upgrade"]).ok();
    reload();
    // In place and with the same pid: systemd need not know.
    started.selvedge.ask(&["upgrade", "--keeper"]).ok();
    assert_eq!(started.selvedge.status()["keeper"]["pid"], started.child.id());
    let _ = kill(Pid::from_raw(i32::try_from(started.child.id()).expect("a pid")), Signal::SIGHUP);
    reload();
    assert_eq!(started.selvedge.ask(&["upgrade", "--binary", "/bin/false"]).code, 1);
    reload();
    started.selvedge.kill_worker();
    started.stop();
    assert_eq!(told(), "STOPPING=1");
}

fn verify(dir: &Path) -> Output {
    let unit = |name: &str| dir.join(name).display().to_string();
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no", &unit("selvedge.service"), &unit("selvedge.socket")]);
    run(&mut command, b"")
}

#[test]
fn the_units_are_valid() {
    let host = Host::new();
    std::fs::copy(binary(), host.path("selvedge")).expect("the binary can be copied");
    let write = |unit: &str, text: &str| std::fs::write(host.path(unit), text).expect("a file can be made");
    let (service, socket) = ("selvedge.service", "selvedge.socket");
    write(service, &unit_here(&host.dir, service));
    write(socket, &unit_here(&host.dir, socket));
    let fine = verify(&host.dir);
    assert_eq!(fine.code, 0, "{}", fine.stderr);
    assert!(!fine.stderr.contains("selvedge."), "{}", fine.stderr);
    // And it would have told.
    for (unit, good, bad) in [
        (service, "KillMode=", "KilMode="),
        (service, "Type=notify", "Type=notified"),
        (service, "ExecStart=/", "ExecStart=/nonexistent/"),
        (socket, "SocketMode=0660", "SocketMode=rw"),
        (socket, "ListenStream=/run/", "ListenStream=run/"),
    ] {
        let text = unit_here(&host.dir, unit);
        assert!(text.contains(good), "{unit} has no {good}");
        write(unit, &text.replace(good, bad));
        let broken = verify(&host.dir);
        assert!(broken.code != 0 || broken.stderr.contains(unit), "{bad}: {}", broken.stderr);
        write(unit, &text);
    }
}

/// A foreground `docker run` that counts, and ends with a code of its own.
struct Task(Child, u32);

impl Task {
    fn start(docker: &Docker, name: &str, seconds: u32) -> Self {
        let script =
            format!("i=0; while [ $i -lt {seconds} ]; do echo $i; i=$((i+1)); sleep 1; done; exit 7");
        let mut task =
            Self(docker.spawn(&["run", "--rm", "--name", name, "busybox", "sh", "-c", &script]), seconds);
        // Its stream has begun.
        let mut first = [0; 2];
        task.0.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("it says something");
        assert_eq!(&first, b"0\n");
        task
    }

    fn assert_ends_well(self) {
        let output = self.0.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected: String = (1..self.1).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
        assert_eq!(output.status.code(), Some(7), "{stderr}");
    }
}

/// Calls the API over and over, each time on a new connection.
struct Calls {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Calls {
    fn start(socket: &Path) -> Self {
        let (stop, socket) = (Arc::new(AtomicBool::new(false)), socket.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let (mut rounds, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Relaxed) {
                let (answer, took) = timed(|| http::get(&socket, "/containers/json"));
                let answer = answer.unwrap_or_else(|error| panic!("call {rounds}: {error}"));
                assert_eq!(answer.status, 200, "call {rounds}: {}", answer.text());
                (rounds, longest) = (rounds + 1, longest.max(took));
            }
            (rounds, longest)
        });
        Self { stop, thread }
    }

    fn assert_never_failed(self, during: &str) {
        self.stop.store(true, Relaxed);
        let (rounds, longest) = self.thread.join().expect("no call failed");
        println!("{during}: {rounds} calls on new connections, none failed, the longest took {longest:?}");
    }
}

const SERVICE: &str = "selvedge.service";
const SOCKET: &str = "selvedge.socket";
const API: &str = "/run/selvedge/docker.sock";

fn state(machine: &Machine) -> (String, String) {
    (machine.property(SERVICE, "ActiveState"), machine.property(SERVICE, "MainPID"))
}

fn a_machine_with_selvedge(host: &Host) -> (Machine, Docker, PathBuf) {
    let machine = Machine::boot(host);
    machine.systemctl(&["start", SOCKET, SERVICE]).ok();
    let (docker, socket) = (machine.docker_at(Path::new(API)), machine.outside(API));
    let found = std::fs::metadata(&socket).expect("the socket's file is there");
    assert_eq!(found.mode() & 0o777, 0o660);
    (machine, docker, socket)
}

#[test]
fn a_reload_upgrades_and_no_client_notices() {
    let host = Host::new();
    let (machine, docker, socket) = a_machine_with_selvedge(&host);
    let before = (state(&machine), inode(&socket));
    assert_eq!(before.0.0, "active");
    docker.start(&["--name", "asked", "busybox", "sleep", "1000"]);
    let task = Task::start(&docker, "task", 8);
    let calls = Calls::start(&socket);
    for _ in 0..3 {
        machine.systemctl(&["reload", SERVICE]).ok();
        docker.run(&["ps"]).ok();
        machine.run(text(&machine.binary()), &["upgrade", "--keeper"]).ok();
    }
    calls.assert_never_failed("3 reloads and 3 successions");
    let workers = machine.log().matches("is ready").count();
    assert_eq!(workers, 4, "each reload starts a worker");
    // What is no good is told by the verb itself, and changes nothing.
    machine.install(Path::new("/bin/false"));
    assert_ne!(machine.systemctl(&["reload", SERVICE]).code, 0);
    machine.install(&binary());
    assert_eq!(machine.log().matches("is ready").count(), workers);
    machine.systemctl(&["reload", SERVICE]).ok();
    let address = docker.run(&["exec", "asked", "nslookup", "asked.selvedge.internal"]);
    assert!(address.ok().contains("10.32.0."), "{address:?}");
    task.assert_ends_well();
    assert_eq!((state(&machine), inode(&socket)), before, "the same keeper, the same socket");
    assert_eq!(machine.property(SERVICE, "NRestarts"), "0");
}

#[test]
fn a_killed_keeper_is_followed_by_its_second_and_the_service_goes_on() {
    let host = Host::new();
    let (machine, docker, socket) = a_machine_with_selvedge(&host);
    let first = inode(&socket);
    let task = Task::start(&docker, "task", 8);
    let calls = Calls::start(&socket);
    let second = || machine.run("cat", &["/run/selvedge/second.pid"]).ok().trim().to_owned();
    for _ in 0..10 {
        let (next, (_, keeper)) = (second(), state(&machine));
        machine.run("kill", &["-9", &keeper]).ok();
        until_true("the second is the main process", LIMIT, || {
            state(&machine) == ("active".to_owned(), next.clone()) && second() != next
        });
    }
    // Its verbs reach the survivor.
    machine.systemctl(&["reload", SERVICE]).ok();
    calls.assert_never_failed("10 kills and a reload");
    task.assert_ends_well();
    assert_eq!(machine.property(SERVICE, "NRestarts"), "0");
    assert_eq!(inode(&socket), first);
    let last = state(&machine).1;
    machine.systemctl(&["restart", SERVICE]).ok();
    docker.run(&["ps"]).ok();
    let (active, other) = state(&machine);
    assert!(active == "active" && other != last, "{active} {other}");
    machine.systemctl(&["stop", SERVICE, SOCKET]).ok();
    assert_eq!(
        (state(&machine).0.as_str(), machine.property(SERVICE, "Result").as_str()),
        ("inactive", "success")
    );
}

#[test]
fn nobody_is_refused_while_the_service_is_stopped_restarted_or_killed() {
    let host = Host::new();
    let (machine, docker, socket) = a_machine_with_selvedge(&host);
    let first = inode(&socket);
    docker.start(&["--name", "stays", "busybox", "sleep", "1000"]);
    let address = docker.address("stays");
    // Streams go on in a process of their own, and that one ends with them.
    let task = Task::start(&docker, "task", 8);
    let (_, keeper) = state(&machine);
    let calls = Calls::start(&socket);
    for _ in 0..2 {
        machine.systemctl(&["restart", SERVICE]).ok();
        docker.run(&["ps"]).ok();
        // The second keeper had none.
        assert_eq!(machine.log().matches("streams go on in process").count(), 1);
    }
    calls.assert_never_failed("2 restarts");
    assert_ne!(state(&machine).1, keeper, "it was restarted");
    assert!(docker.run(&["ps"]).ok().contains("task"), "the task runs on");
    task.assert_ends_well();
    until_true("the last streams' process ends", LIMIT, || {
        machine.log().contains("the last streams have ended")
    });
    // The socket is systemd's: who connects starts the service again.
    machine.systemctl(&["stop", SERVICE]).ok();
    assert_eq!(state(&machine).0, "inactive");
    docker.run(&["ps"]).ok();
    assert_eq!(state(&machine).0, "active");
    // A keeper and its second that are killed together.
    let keeper = state(&machine).1;
    let second = machine.run("cat", &["/run/selvedge/second.pid"]).ok().trim().to_owned();
    machine.run("kill", &["-STOP", &keeper, &second]).ok();
    // systemd may be the quicker one to end the second.
    let _ = machine.run("kill", &["-9", &keeper, &second]);
    docker.run(&["ps"]).ok();
    let (active, other) = state(&machine);
    assert!(active == "active" && other != keeper && other != second, "{active} {other}");
    assert_eq!(machine.property(SERVICE, "NRestarts"), "1");
    // A worker that the kernel kills is no affair of systemd's.
    let worker = machine.run("pgrep", &["-P", &other, "-f", "selvedge worker"]).ok().to_owned();
    machine.run("kill", &["-9", &worker]).ok();
    docker.run(&["ps"]).ok();
    assert_eq!(state(&machine), (active, other));
    assert_eq!(inode(&socket), first, "always the same socket");
    assert_eq!(docker.address("stays"), address);
    // Both stopped: nobody answers, and the file stays. What goes on even then can be ended.
    let task = Task::start(&docker, "cut", 60);
    machine.systemctl(&["stop", SOCKET, SERVICE]).ok();
    assert!(http::connect(&socket).is_err());
    assert_eq!(inode(&socket), first);
    machine.systemctl(&["kill", SERVICE]).ok();
    let output = task.0.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(125), "the client is told: {output:?}");
    machine.systemctl(&["start", SOCKET, SERVICE]).ok();
    docker.run(&["ps"]).ok();
}
