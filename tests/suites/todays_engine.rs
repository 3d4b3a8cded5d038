//! The same behind an engine of today: API 1.45 or newer, multiplexed streams, BuildKit, Compose.

use std::sync::OnceLock;

use selvedge_tests::compare::same;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::selvedge::Selvedge;

struct Today {
    host: Host,
    engine: Engine,
    selvedge: Selvedge,
}

impl Today {
    fn shared() -> &'static Self {
        static LAB: OnceLock<Today> = OnceLock::new();
        LAB.get_or_init(|| {
            let host = Host::new();
            let engine = Engine::trixie(&host, &[]);
            let selvedge = Selvedge::start(&host, &engine, &[]);
            Self { host, engine, selvedge }
        })
    }

    fn docker(&self) -> Docker {
        self.engine.docker_at(&self.selvedge.socket())
    }

    fn same(&self, name: &str, script: &str) {
        same(name, &self.engine.docker(), &self.docker(), script);
    }
}

#[test]
fn the_engine_is_of_today() {
    let lab = Today::shared();
    let version = lab.docker().run(&["version", "--format", "{{.Server.APIVersion}}"]).ok().to_owned();
    let minor: u32 = version.strip_prefix("1.").and_then(|minor| minor.parse().ok()).expect("1.N");
    assert!(minor >= 45, "{version}");
}

#[test]
fn containers_find_each_other_by_name() {
    let lab = Today::shared();
    let docker = lab.docker();
    docker.start(&["--name", "today-db", "busybox", "httpd", "-f", "-h", "/etc"]);
    let out =
        docker.run(&["run", "--rm", "busybox", "wget", "-qO-", "http://today-db.selvedge.internal/hostname"]);
    assert_eq!(out.ok(), "today-db");
    assert!(
        docker.run(&["exec", "today-db", "cat", "/etc/hosts"]).ok().contains("today-db.selvedge.internal")
    );
    assert!(docker.address("today-db").starts_with("10.32."));
    docker.remove(&["today-db"]);
}

#[test]
fn streams_are_the_same() {
    let lab = Today::shared();
    lab.same("run", "docker run --rm busybox sh -c 'echo out; echo err >&2; exit 7'; echo $?");
    lab.same("stdin", "printf 'a\\nb\\n' | docker run --rm -i busybox cat");
    lab.same("late output", "printf x | docker run --rm -i busybox sh -c 'cat; sleep 0.5; echo late'");
    lab.same("detached", "docker run -d --name today-x busybox sh -c 'echo hi; sleep 1; exit 4' >/dev/null; docker wait today-x; docker logs today-x; docker rm today-x");
    lab.same("exec", "docker run -d --name today-e busybox sleep 100 >/dev/null; docker exec today-e sh -c 'echo e; exit 3'; echo $?; echo in | docker exec -i today-e cat; docker exec today-e nosuch; echo $?; docker rm -f today-e");
    lab.same("copy", "docker create --name today-c busybox true >/dev/null; docker cp /etc/hostname today-c:/tmp/x 2>/dev/null; docker cp today-c:/tmp/x - | tar -t; docker cp today-c:/nosuch -; echo $?; docker rm today-c");
    lab.same(
        "save and load",
        "docker tag busybox today-saved; docker save today-saved | docker load; docker rmi today-saved",
    );
}

#[test]
fn programs_that_are_not_there_fail_in_the_engines_words() {
    let lab = Today::shared();
    for program in ["nosuch", "/nosuch", "/etc/passwd", "/etc", "./x"] {
        lab.same(program, &format!("docker run --rm busybox {program}; echo $?"));
        lab.same(program, &format!("docker run -d --name today-missing busybox {program} >/dev/null; echo $?; docker inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}} {{{{.State.Error}}}}' today-missing; docker rm -f today-missing"));
    }
    // tini names its child's pid, which differs from run to run.
    lab.same(
        "init",
        "{ docker run --rm --init busybox nosuch; echo $?; } 2>&1 | sed 's/tini ([0-9]*)/tini (N)/'",
    );
    lab.same("no command", "echo FROM scratch | docker build -q -t today-empty - >/dev/null; docker run today-empty; echo $?; docker rmi -f today-empty >/dev/null");
}

#[test]
fn inspect_and_list_show_no_trace_of_wait() {
    let lab = Today::shared();
    let fields = "{{.Path}} {{json .Args}} {{json .Config.Entrypoint}} {{json .Config.Cmd}} {{json .Config.Labels}} {{json .Mounts}} {{json .HostConfig.Mounts}} {{json .HostConfig.Dns}} {{json .HostConfig.DnsSearch}} {{.HostConfig.NetworkMode}}";
    lab.same("inspect", &format!("docker run -d --name today-i --label a=b busybox sleep 100 >/dev/null; docker inspect --format '{fields}' today-i; docker ps --no-trunc --format '{{{{.Names}}}} {{{{.Command}}}} {{{{.Labels}}}} {{{{.Mounts}}}}' --filter name=today-i; docker diff today-i; docker rm -f today-i"));
}

#[test]
fn commits_run_without_selvedge() {
    let lab = Today::shared();
    let docker = lab.docker();
    docker.run(&["run", "--name", "today-commit", "busybox", "sh", "-c", "echo kept > /kept"]).ok();
    docker.run(&["commit", "--change", "CMD [\"cat\", \"/kept\"]", "today-commit", "today-image"]).ok();
    assert_eq!(lab.engine.docker().run(&["run", "--rm", "today-image"]).ok(), "kept");
    assert_eq!(docker.run(&["run", "--rm", "today-image"]).ok(), "kept");
    docker.remove(&["today-commit"]);
    docker.run(&["rmi", "today-image"]).ok();
}

#[test]
fn buildkit_builds() {
    let lab = Today::shared();
    let directory = lab.host.path("build");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    std::fs::write(directory.join("Dockerfile"), "FROM scratch\nCOPY payload /payload\n")
        .expect("a file can be made");
    std::fs::write(directory.join("payload"), "x".repeat(3_000_000)).expect("a file can be made");
    let script = format!(
        "docker buildx build -q -t today-built {0} >/dev/null && docker create --name today-b today-built x >/dev/null && docker cp today-b:/payload - | wc -c; docker rm today-b; docker rmi today-built >/dev/null",
        directory.display()
    );
    let built = lab.docker().script(&script, b"");
    assert!(built.ok().contains("3001344") || built.ok().contains("300"), "{}{}", built.stdout, built.stderr);
    lab.same("build", &script);
}

#[test]
fn compose_services_find_each_other_by_name() {
    let lab = Today::shared();
    let directory = lab.host.path("compose");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let file = "services:\n  web:\n    image: busybox\n    network_mode: bridge\n    command: httpd -f -h /etc\n  ask:\n    image: busybox\n    network_mode: bridge\n    depends_on: [web]\n    command: sh -c 'wget -qO- http://web.selvedge.internal/passwd | head -n 1'\n";
    std::fs::write(directory.join("compose.yaml"), file).expect("a file can be made");
    let path = directory.join("compose.yaml").display().to_string();
    let up = lab.docker().run(&[
        "compose",
        "-f",
        &path,
        "-p",
        "today",
        "up",
        "--abort-on-container-exit",
        "--exit-code-from",
        "ask",
    ]);
    assert!(up.stdout.contains("root:x:0:0"), "{}{}", up.stdout, up.stderr);
    assert_eq!(up.code, 0, "{}", up.stderr);
    lab.docker().run(&["compose", "-f", &path, "-p", "today", "down", "-t", "1"]).ok();
}

#[test]
fn mesos_gets_its_container_config_where_it_is_asked_for() {
    let host = Host::beside(&Today::shared().host);
    let engine = &Today::shared().engine;
    let arguments = ["--compat", "mesos", "--pool", "10.112.0.0/16", "--dns-listen", "169.254.1.3:53"];
    let selvedge = Selvedge::prepare(&host, &engine.socket, &arguments);
    selvedge.start_again();
    let ping = http::get(&selvedge.socket(), "/_ping").expect("an answer");
    assert!(ping.head.contains("Api-Version: 1.44\r\n"), "{}", ping.head);
    let image = http::get(&selvedge.socket(), "/images/busybox/json").expect("an answer").text();
    let image: serde_json::Value = serde_json::from_str(&image).expect("JSON");
    assert!(
        image["ContainerConfig"].get("Entrypoint").is_some() && image["ContainerConfig"].get("Env").is_some()
    );
    selvedge.stop();
}

#[test]
fn compose_updates_a_service_that_has_an_address_of_its_own() {
    let lab = Today::shared();
    let directory = lab.host.path("compose-ip");
    std::fs::create_dir_all(&directory).expect("a directory can be made");
    let path = directory.join("compose.yaml");
    let up = |release: &str| {
        let file = format!(
            "services:\n  db:\n    image: busybox\n    network_mode: bridge\n    command: sleep 1000\n    stop_signal: KILL\n    environment: {{RELEASE: \"{release}\"}}\n    labels: {{selvedge.ip: 10.41.0.9}}\n"
        );
        std::fs::write(&path, file).expect("a file can be made");
        let file = path.display().to_string();
        let up = lab.docker().run(&["compose", "-f", &file, "-p", "fixed", "up", "-d"]);
        assert_eq!(up.code, 0, "release {release}: {}", up.stderr);
        let inspected = lab.docker().inspect("fixed-db-1");
        assert!(
            inspected["Config"]["Env"].to_string().contains(&format!("RELEASE={release}")),
            "{inspected}"
        );
        assert_eq!(inspected["NetworkSettings"]["IPAddress"], "10.41.0.9");
        inspected["Id"].clone()
    };
    // Compose makes the new one under another name while the old one runs, and then removes that.
    let ids = ["1", "2", "3"].map(up);
    assert!(ids[0] != ids[1] && ids[1] != ids[2], "it was recreated");
    assert_eq!(lab.host.resolve("db"), ["10.41.0.9"], "by the service's name");
    let file = path.display().to_string();
    lab.docker().run(&["compose", "-f", &file, "-p", "fixed", "down", "-t", "1"]).ok();
}
