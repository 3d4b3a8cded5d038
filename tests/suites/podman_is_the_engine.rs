//! podman's Docker API as the engine: what a user of Docker's CLI does works behind it, too, through upgrades and kills.

use std::time::Duration;

use selvedge_tests::compare::same;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::slow::Slow;
use selvedge_tests::wait::until_true;

/// How long a status may take to show what has just happened.
const SOON: Duration = Duration::from_secs(5);

// Fields are dropped in this order: podman takes its containers away last.
struct Lab {
    selvedge: Selvedge,
    engine: Engine,
    host: Host,
}

impl Lab {
    fn new() -> Self {
        let host = Host::new();
        let engine = Engine::podman(&host);
        let selvedge = Selvedge::start(&host, &engine, &[]);
        Self { selvedge, engine, host }
    }

    fn docker(&self) -> Docker {
        self.selvedge.docker()
    }
}

#[test]
fn containers_have_wires_and_names() {
    let lab = Lab::new();
    let docker = lab.docker();
    docker.start(&["--name", "db", "busybox", "httpd", "-f", "-h", "/etc"]);
    let page = ["run", "--rm", "busybox", "wget", "-qO-", "http://db.selvedge.internal/hostname"];
    assert!(!docker.run(&page).ok().is_empty());
    let inspected = docker.inspect("db");
    let settings = &inspected["NetworkSettings"];
    let address = settings["IPAddress"].as_str().expect("an address");
    assert!(address.starts_with("10.32."), "{settings}");
    assert_eq!(settings["Networks"]["podman"]["IPAddress"], address, "clients read either");
    assert_eq!(inspected["Path"], "httpd");
    assert!(!inspected.to_string().contains("selvedge.internal.wire"), "{inspected}");
    assert_eq!(lab.host.resolve("db"), [address.to_owned()]);
    assert_eq!(lab.selvedge.shown("db").expect("it is shown")["state"], "wired");
}

#[test]
fn the_command_line_works_as_without_us() {
    let lab = Lab::new();
    let (direct, through) = (lab.engine.docker(), lab.docker());
    let same = |name: &str, script: &str| same(name, &direct, &through, script);
    same("run", "docker run --rm busybox sh -c 'echo out; echo err >&2; exit 7'; echo $?");
    same("stdin", "printf 'a\\nb\\n' | docker run --rm -i busybox cat");
    same(
        "detached",
        "docker run -d --name x busybox sh -c 'echo hi; exit 4' >/dev/null; docker wait x; docker logs x; docker rm x",
    );
    same(
        "exec",
        "docker run -d --name e busybox sleep 100 >/dev/null; docker exec e sh -c 'echo e; exit 3'; echo $?; docker rm -f e",
    );
    same(
        "again",
        "docker run -d --name r busybox sleep 100 >/dev/null; docker restart -t 0 r; docker ps --format '{{.Names}} {{.Command}}'; docker rm -f r",
    );
}

#[test]
fn upgrades_and_kills_are_not_noticed() {
    let lab = Lab::new();
    let docker = lab.docker();
    docker.start(&["--name", "kept", "busybox", "sleep", "1000"]);
    // With --rm podman 4.3 itself answers 0 for a container that ran for seconds.
    let task = docker.spawn(&["run", "-i", "busybox", "sh", "-c", "cat; exit 9"]);
    let running = || docker.run(&["ps", "-q"]).ok().lines().count();
    until_true("the task runs", SOON, || running() == 2);
    assert_eq!(lab.selvedge.ask(&["upgrade"]).code, 0);
    lab.selvedge.kill_worker();
    assert_eq!(docker.run(&["exec", "kept", "hostname"]).code, 0, "the next worker serves");
    assert_eq!(lab.host.resolve("kept"), [docker.address("kept")]);
    // The end of its input ends it.
    let ended = task.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(9), "{}", String::from_utf8_lossy(&ended.stderr));
}

#[test]
fn an_engine_that_takes_its_time_is_slow_and_not_dead() {
    let host = Host::new();
    let engine = Engine::podman(&host);
    let slow = Slow::start(host.path("slow.sock"), &engine.socket, "GET /version", Duration::from_secs(3));
    let selvedge = Selvedge::prepare(&host, &slow.socket, &[]);
    selvedge.start_again();
    until_true("status says that it is slow", Duration::from_secs(15), || {
        selvedge.ask(&["status"]).stdout.contains("engine    slow, 4.3.1")
    });
    let checked = selvedge.ask(&["status", "--check"]);
    assert_eq!(checked.code, 1, "{}", checked.stdout);
    assert!(checked.stdout.contains("is slow: "), "{}", checked.stdout);
    engine.pause();
    until_true("a hung one does not answer", Duration::from_secs(60), || {
        selvedge.ask(&["status", "--check"]).code == 2
    });
    engine.go_on();
}
