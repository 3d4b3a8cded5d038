//! A container's first program is ours until its wire is there. No client can tell.

use std::time::{Duration, Instant};

use selvedge_tests::Lab;
use selvedge_tests::compare::same;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::wait::until_true;
use serde_json::Value;

fn alike(name: &str, script: &str) {
    let lab = Lab::shared();
    same(name, &lab.engine.docker(), &lab.selvedge.docker(), script);
}

/// All of an inspect but what is another each time: ids, times, pids, and the network, which shall differ.
fn bare_inspect(docker: &Docker, name: &str) -> Value {
    let mut all = docker.inspect(name);
    let id = all["Id"].as_str().unwrap_or_default().to_owned();
    let map = all.as_object_mut().expect("an object");
    for key in ["Id", "Created", "NetworkSettings", "GraphDriver"] {
        map.remove(key);
    }
    let state = map["State"].as_object_mut().expect("an object");
    for key in ["Pid", "StartedAt", "FinishedAt"] {
        state.remove(key);
    }
    // The engine walks a Go map for them: their order differs from one container to the next.
    if let Some(mounts) = map.get_mut("Mounts").and_then(Value::as_array_mut) {
        mounts.sort_by_key(|mount| mount["Destination"].to_string());
    }
    let text = all.to_string().replace(&id, "ID").replace(&id[..12], "ID");
    serde_json::from_str(&text).expect("it was JSON before")
}

/// Every field that differs, by its path.
fn differences(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    let (Some(one), Some(other)) = (left.as_object(), right.as_object()) else {
        if left != right {
            found.push(format!("{path}: {left} directly, {right} through Selvedge"));
        }
        return;
    };
    for key in one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))) {
        differences(&format!("{path}.{key}"), &left[key], &right[key], found);
    }
    let keys = |value: &serde_json::Map<String, Value>| value.keys().cloned().collect::<Vec<_>>();
    let (mut left, mut right) = (keys(one), keys(other));
    left.sort();
    right.sort();
    if left != right {
        found.push(format!("{path} has the fields {left:?} directly, {right:?} through Selvedge"));
    }
}

/// Ways to create a container.
const OPTIONS: [&str; 9] = [
    "busybox sleep 1000",
    "--entrypoint sleep busybox 1000",
    "-it --init --user 1000:1000 --read-only busybox",
    "--network none --label a=b -e A=B busybox sleep 1000",
    "--network host busybox sleep 1000",
    "--dns 192.0.2.1 --dns-search a.b --dns-opt ndots:2 busybox top",
    "-v /etc:/x:ro --tmpfs /y --mount type=tmpfs,dst=/z busybox top",
    "--hostname h.example --restart on-failure:2 -m 64m busybox top",
    "-v /dev:/dev --cap-add SYS_ADMIN --pid host busybox sleep 1000",
];

#[test]
fn the_whole_of_an_inspect_is_as_without_us() {
    let lab = Lab::shared();
    for options in OPTIONS {
        let arguments: Vec<&str> = options.split(' ').collect();
        let arguments = &arguments[..];
        for verb in [&["create", "--name", "traced"][..], &["run", "-d", "--name", "traced"]] {
            let [direct, through] = [lab.engine.docker(), lab.selvedge.docker()].map(|docker| {
                docker.run(&[verb, arguments].concat()).ok();
                let inspect = bare_inspect(&docker, "traced");
                docker.remove(&["traced"]);
                inspect
            });
            let mut found = Vec::new();
            differences("", &direct, &through, &mut found);
            // The hostname is the id's beginning where the user gave none: with us the container's name.
            found.retain(|line| !line.starts_with(".Config.Hostname: \"ID\""));
            assert!(found.is_empty(), "{verb:?} {arguments:?}:\n{}", found.join("\n"));
        }
    }
}

#[test]
fn the_address_is_the_wires_at_the_first_inspect_that_shows_it_started() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    for mode in ["default", "bridge", "none"] {
        let create = ["create", "--name", "asked-early", "--network", mode, "busybox", "sleep", "1000"];
        docker.run(&create).ok();
        let mut start = docker.spawn(&["start", "asked-early"]);
        let found = loop {
            let answer = http::get(&lab.socket(), "/v1.41/containers/asked-early/json").expect("an answer");
            let json: Value = serde_json::from_str(&answer.text()).expect("JSON");
            if json["State"]["StartedAt"] != "0001-01-01T00:00:00Z" {
                break json;
            }
        };
        let _ = start.wait();
        let address = found["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default();
        let network = if mode == "default" { "bridge" } else { mode };
        assert!(address.starts_with("10.32."), "{mode}: {}", found["NetworkSettings"]);
        assert_eq!(found["NetworkSettings"]["Networks"][network]["IPAddress"], address, "{mode}");
        let list = http::get(&lab.socket(), "/containers/json").expect("an answer").text();
        let list: Value = serde_json::from_str(&list).expect("JSON");
        let listed = list.as_array().and_then(|all| all.iter().find(|one| one["Id"] == found["Id"]));
        let listed = &listed.expect("it is listed")["NetworkSettings"]["Networks"][network]["IPAddress"];
        assert_eq!(listed, address, "{mode}");
        docker.remove(&["asked-early"]);
    }
}

#[test]
fn lists_and_processes_show_the_users_program() {
    let begin = "docker run -d --name shown --label a=b busybox sleep 1000 >/dev/null;";
    let end = "docker rm -f shown >/dev/null";
    let ps = "docker ps --no-trunc --filter name=shown --format '{{.Names}} {{.Command}} {{.Labels}} {{.Mounts}} {{.Networks}} {{.Ports}}';";
    alike("ps", &format!("{begin} {ps} {end}"));
    alike("top", &format!("{begin} docker top shown -o pid,comm,args | sed 's/^ *[0-9]* *//'; {end}"));
    alike(
        "top with init",
        &format!(
            "{} docker top shown -o pid,comm,args | sed 's/^ *[0-9]* *//'; {end}",
            begin.replace("-d", "-d --init")
        ),
    );
    alike(
        "ps inside",
        &format!(
            "{begin} docker exec shown sh -c 'cat /proc/1/cmdline | tr \"\\0\" \" \"; cat /proc/1/comm; readlink /proc/1/exe'; {end}"
        ),
    );
    alike(
        "environment and state",
        &format!(
            "{begin} docker exec shown sh -c 'tr \"\\0\" \"\\n\" </proc/1/environ | grep -v HOSTNAME | sort; grep -E \"^(SigPnd|ShdPnd|SigBlk|SigIgn|SigCgt|Cap|Seccomp|NoNewPrivs|Uid|Groups|Threads)\" /proc/1/status; ls -l /proc/1/fd | wc -l; cat /proc/1/limits; cat /proc/1/oom_score_adj; readlink /proc/1/cwd'; {end}"
        ),
    );
    alike("changes", &format!("{begin} docker exec shown touch /new; docker diff shown; {end}"));
    alike(
        "filters",
        &format!("{begin} docker ps --filter label=a=b --filter name=shown --format '{{{{.Names}}}}'; {end}"),
    );
    alike(
        "events",
        &format!(
            "since=$(date +%s.%N); {begin} docker events --since $since --until $(date +%s.%N) --filter container=shown --filter type=container --format '{{{{.Action}}}} {{{{.Actor.Attributes.name}}}} {{{{.Actor.Attributes.image}}}}'; {end}"
        ),
    );
}

#[test]
fn mounts_of_ours_are_not_shown() {
    alike(
        "mounts",
        "docker run -d --name mounted -v /etc:/x busybox sleep 1000 >/dev/null; docker inspect --format '{{json .Mounts}} {{json .HostConfig.Binds}} {{json .HostConfig.Mounts}}' mounted; docker ps --filter name=mounted --filter volume=/x --format '{{.Names}} {{.Mounts}}'; docker rm -f mounted",
    );
    alike(
        "volumes from",
        "docker run -d --name mounted-a -v /data busybox sleep 1000 >/dev/null; docker run --rm --volumes-from mounted-a busybox sh -c 'touch /data/x; ls /data'; docker rm -f -v mounted-a",
    );
    alike(
        "a file system of its own",
        "docker run --rm --read-only busybox sh -c 'touch /x; echo $?; df /dev | wc -l; ls -A / | sort'",
    );
    alike(
        "export",
        "docker create --name mounted-e busybox true >/dev/null; docker start -a mounted-e; docker export mounted-e | tar -t | sort | grep -v -e ^bin/ -e ^./bin/ | head -n 40; docker rm mounted-e",
    );
    alike(
        "a user's own /dev",
        "docker run --rm -v /dev:/dev busybox sh -c 'ls -A /dev | grep -i selvedge; echo done'; ls -A /dev | grep -i selvedge; echo on the host: $?",
    );
}

#[test]
fn entrypoints_and_commands_in_all_their_forms_mean_the_same() {
    let build = "printf 'FROM busybox\\nENTRYPOINT [\"echo\", \"entry\"]\\nCMD [\"cmd\"]\\n' | docker build -q -t formed - >/dev/null;";
    let remove = "docker rmi -f formed >/dev/null";
    for (name, run) in [
        ("as the image says", "docker run --rm formed"),
        ("another command", "docker run --rm formed other words"),
        ("no entrypoint", "docker run --rm --entrypoint '' formed echo bare"),
        ("no entrypoint and no command", "docker run --rm --entrypoint '' formed; echo $?"),
        (
            "another entrypoint",
            "docker run --rm --entrypoint echo formed; docker run --rm --entrypoint echo formed x",
        ),
        ("an empty word", "docker run --rm formed ''"),
    ] {
        alike(name, &format!("{build} {run}; {remove}"));
    }
    let shell = "printf 'FROM busybox\\nENV A=b\\nENTRYPOINT echo $A $0 $@\\nCMD ls\\n' | docker build -q -t formed-sh - >/dev/null;";
    alike(
        "shell form",
        &format!(
            "{shell} docker run --rm formed-sh; docker run --rm formed-sh x; docker rmi formed-sh >/dev/null"
        ),
    );
    alike(
        "no command anywhere",
        "echo FROM scratch | docker build -q -t formed-none - >/dev/null; docker run formed-none; echo $?; docker create formed-none; echo $?; docker rmi -f formed-none >/dev/null",
    );
}

/// Creates by the API, starts, and gives back what came of it.
fn by_api(lab: &Lab, through: bool, body: &str) -> String {
    let socket = if through { lab.socket() } else { lab.engine.socket.clone() };
    let docker = if through { lab.selvedge.docker() } else { lab.engine.docker() };
    let answer = http::post(&socket, "/v1.41/containers/create?name=formed-api", body).expect("an answer");
    if answer.status != 201 {
        return format!("{} {}", answer.status, answer.text());
    }
    let fields = "{{.Path}} {{json .Args}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}";
    let seen = docker.run(&["inspect", "--format", fields, "formed-api"]);
    let out = docker.run(&["start", "-a", "formed-api"]);
    docker.remove(&["formed-api"]);
    // The CLI itself does not always get to say this before it ends, with or without us.
    let race = |line: &&str| !line.contains("error waiting for container: context canceled");
    let stderr: Vec<&str> = out.stderr.lines().filter(race).collect();
    format!("{} {} {stderr:?} {}", seen.stdout, out.stdout, out.code)
}

#[test]
fn strings_nulls_and_empty_lists_of_the_api_mean_the_same() {
    let lab = Lab::shared();
    for body in [
        r#"{"Image":"busybox","Cmd":"ls"}"#,
        r#"{"Image":"busybox","Cmd":"echo one word"}"#,
        r#"{"Image":"busybox","Entrypoint":"echo","Cmd":["x"]}"#,
        r#"{"Image":"busybox","Entrypoint":[],"Cmd":["echo","x"]}"#,
        r#"{"Image":"busybox","Entrypoint":[""],"Cmd":["echo","x"]}"#,
        r#"{"Image":"busybox","Entrypoint":[""]}"#,
        r#"{"Image":"busybox","Entrypoint":null,"Cmd":null,"Tty":false}"#,
        r#"{"Image":"busybox","Entrypoint":["echo"],"Cmd":[]}"#,
        r#"{"Image":"busybox","Entrypoint":["echo"],"Cmd":[""]}"#,
        r#"{"Image":"busybox","Cmd":["echo","","x"]}"#,
        r#"{"Image":"busybox","Cmd":[""]}"#,
        r#"{"Image":"busybox","Cmd":["echo","\u00e9\n\"'"]}"#,
    ] {
        assert_eq!(by_api(lab, false, body), by_api(lab, true, body), "{body}");
    }
}

#[test]
fn programs_that_are_not_there_fail_in_the_engines_words() {
    for program in ["nosuch", "/nosuch", "/etc/passwd", "/etc", "./x", "/etc/passwd/x", "''"] {
        alike(program, &format!("docker run --rm busybox {program}; echo $?"));
        alike(
            program,
            &format!(
                "docker run -d --name missing busybox {program} >/dev/null; echo $?; docker inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}} {{{{.State.Error}}}} {{{{.State.StartedAt}}}}' missing; docker rm -f missing"
            ),
        );
        alike(
            program,
            &format!(
                "docker create --name missing busybox {program} >/dev/null; docker start missing; echo $?; docker start -a missing; echo $?; docker rm -f missing"
            ),
        );
    }
    alike(
        "a working directory",
        "docker run --rm -w /nowhere/yet busybox pwd; docker run --rm -w /etc busybox ./passwd; echo $?",
    );
    alike(
        "a path of its own",
        "docker run --rm -e PATH=/nowhere busybox ls; echo $?; docker run --rm -e PATH=/nowhere busybox /bin/ls -d /etc; echo $?",
    );
    alike(
        "a user that may not",
        "docker run --rm --user 1000 busybox sh -c 'id -u; touch /x; echo $?'; docker run --rm --user nobody-here busybox true; echo $?",
    );
    alike(
        "a restart policy",
        "docker run -d --name missing --restart always busybox nosuch >/dev/null; echo $?; docker inspect --format '{{.State.Status}} {{.RestartCount}}' missing; docker rm -f missing",
    );
    // tini names its child's pid, which differs from run to run.
    alike(
        "init",
        "{ docker run --rm --init busybox nosuch; echo $?; } 2>&1 | sed 's/tini ([0-9]*)/tini (N)/'",
    );
    alike(
        "a script without its interpreter",
        "printf 'FROM busybox\\nRUN printf \"#!/nowhere/sh\\\\n\" >/script && chmod +x /script && printf x >/binary && chmod +x /binary\\n' | docker build -q -t missing-image - >/dev/null; docker run --rm missing-image /script; echo $?; docker run --rm missing-image /binary; echo $?; docker rmi missing-image >/dev/null",
    );
}

#[test]
fn exit_codes_are_the_programs_own() {
    for code in [0, 1, 2, 42, 125, 126, 127, 128, 137, 255] {
        alike("exit code", &format!("docker run --rm busybox sh -c 'exit {code}'; echo $?"));
    }
    alike(
        "killed by itself",
        "docker run --rm busybox sh -c 'kill -9 $$'; echo $?; docker run --rm --init busybox sh -c 'kill -9 $$'; echo $?",
    );
    alike(
        "wait and inspect",
        "docker run --name code busybox sh -c 'exit 9'; docker wait code; docker inspect --format '{{.State.ExitCode}} {{.State.OOMKilled}} {{json .State.Error}}' code; docker rm code",
    );
}

#[test]
fn users_init_and_read_only_roots_work() {
    alike("init", "docker run --rm --init busybox sh -c 'cat /proc/1/comm'");
    alike("user", "docker run --rm --user 1000:1001 --group-add 7 busybox id");
    alike(
        "read-only",
        "docker run --rm --read-only --tmpfs /tmp busybox sh -c 'touch /tmp/x && echo made; touch /x; echo $?'",
    );
    alike(
        "no capabilities",
        "docker run --rm --cap-drop ALL --security-opt no-new-privileges --user 1000 busybox sh -c 'grep -E \"^(Cap|NoNewPrivs|Seccomp)\" /proc/self/status'",
    );
    alike(
        "terminal",
        "docker run --rm -t busybox sh -c 'tty; stty size >/dev/null; test -t 0 && test -t 1 && echo terminal'",
    );
    alike(
        "stdin",
        "printf 'a\\nb\\n' | docker run --rm -i busybox sh -c 'read x; echo $x; cat; ls -l /proc/self/fd | wc -l'",
    );
    alike(
        "limits",
        "docker run --rm --ulimit nofile=77:99 --pids-limit 20 --memory 32m busybox sh -c 'ulimit -n; ulimit -Hn'",
    );
    alike("working directory", "docker run --rm -w /etc busybox pwd");
    alike("hostname", "docker run --rm --hostname given busybox hostname");
}

#[test]
fn signals_and_the_grace_of_stop_reach_the_program() {
    let trap = "trap \"echo got TERM; exit 6\" TERM; trap \"echo got USR1\" USR1; trap \"echo got HUP; exit 8\" HUP; echo ready; while :; do sleep 0.1; done";
    let begin = format!(
        "docker run -d --name signalled busybox sh -c '{trap}' >/dev/null; until docker logs signalled | grep -q ready; do sleep 0.1; done;"
    );
    let end = "docker wait signalled; docker logs signalled; docker rm signalled";
    alike("stop", &format!("{begin} docker stop -t 10 signalled; {end}"));
    alike(
        "kill",
        &format!("{begin} docker kill -s USR1 signalled; sleep 0.5; docker kill -s HUP signalled; {end}"),
    );
    alike(
        "stop signal",
        &format!(
            "{} docker stop -t 10 signalled; {end}",
            begin.replace("--name", "--stop-signal HUP --name")
        ),
    );
    alike(
        "deaf",
        "docker run -d --name deaf busybox sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.1; done' >/dev/null; until docker logs deaf | grep -q ready; do sleep 0.1; done; docker stop -t 1 deaf; docker wait deaf; docker rm deaf",
    );
    alike(
        "stopped before it began",
        "docker create --name unbegun busybox sleep 1000 >/dev/null; docker stop unbegun; docker kill unbegun; echo $?; docker rm unbegun",
    );
}

#[test]
fn a_stop_takes_no_longer_than_its_grace() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&[
        "--name",
        "graceful",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 0' TERM; while :; do sleep 0.1; done",
    ]);
    until_true("the trap is set", Duration::from_secs(10), || {
        docker.run(&["exec", "graceful", "grep", "SigCgt", "/proc/1/status"]).stdout.contains('4')
    });
    let began = Instant::now();
    docker.run(&["stop", "-t", "30", "graceful"]).ok();
    assert!(began.elapsed() < Duration::from_secs(15), "the signal was lost: {:?}", began.elapsed());
    docker.remove(&["graceful"]);
}

#[test]
fn what_is_committed_is_the_users() {
    let lab = Lab::shared();
    committed(&lab.selvedge.docker(), &lab.engine.docker());
    let script = "docker run --name kept-x busybox touch /x; docker commit -m note -a me kept-x kept-y >/dev/null; docker inspect --type=image --format '{{json .Config}} {{json .ContainerConfig}} {{.Comment}} {{.Author}}' kept-y | sed 's/\"Hostname\":\"[^\"]*\"//g'; docker history --format '{{.CreatedBy}} {{.Comment}}' kept-y | head -n 1; docker rm kept-x; docker rmi kept-y >/dev/null";
    alike("commit", script);
}

/// Images and their labels go through containerd there.
#[test]
fn what_is_committed_to_the_containerd_store_is_the_users() {
    let host = Host::new();
    let engine = Engine::sid(&host, &[]);
    let selvedge = Selvedge::start(&host, &engine, &[]);
    let (docker, raw) = (engine.docker_at(&selvedge.socket()), engine.docker());
    committed(&docker, &raw);
    behind_our_back(&selvedge, &docker, &raw);
}

/// Commits by us, of a container of ours.
fn committed(docker: &Docker, raw: &Docker) {
    docker
        .run(&[
            "run",
            "--name",
            "kept",
            "--label",
            "a=b",
            "busybox",
            "sh",
            "-c",
            "echo kept >/kept; cat /kept",
        ])
        .ok();
    docker.run(&["commit", "kept", "kept-image"]).ok();
    // By the engine itself: nothing of ours may be needed, or be left.
    assert_eq!(raw.run(&["run", "--rm", "kept-image"]).ok(), "kept");
    let config =
        raw.run(&["inspect", "--type=image", "--format", "{{json .Config}}", "kept-image"]).ok().to_owned();
    // A commit cannot take a label away, only write it empty: that means none (design, section 4).
    let config = config.replace(r#""selvedge.internal.wire":"""#, "");
    assert!(!config.to_ascii_lowercase().contains("selvedge"), "{config}");
    let container =
        raw.run(&["inspect", "--type=image", "--format", "{{json .ContainerConfig}}", "kept-image"]);
    println!("ContainerConfig: {}", container.stdout);
    // And again by us, from that image.
    assert_eq!(docker.run(&["run", "--rm", "kept-image"]).ok(), "kept");
    docker
        .run(&[
            "commit",
            "--change",
            "CMD [\"echo\", \"changed\"]",
            "--change",
            "ENV X=y",
            "kept",
            "kept-changed",
        ])
        .ok();
    assert_eq!(raw.run(&["run", "--rm", "kept-changed"]).ok(), "changed");
    docker.remove(&["kept"]);
    docker.run(&["rmi", "kept-image", "kept-changed"]).ok();
}

#[test]
fn an_image_committed_behind_our_back_still_runs_through_us() {
    let lab = Lab::shared();
    behind_our_back(&lab.selvedge, &lab.selvedge.docker(), &lab.engine.docker());
}

/// Commits by the engine itself, which copies our label.
fn behind_our_back(selvedge: &Selvedge, docker: &Docker, raw: &Docker) {
    docker.run(&["run", "--name", "sly", "busybox", "echo", "sly"]).ok();
    raw.run(&["commit", "sly", "sly-image"]).ok();
    let run = docker.run(&["run", "--name", "sly-again", "sly-image"]);
    assert_eq!(run.ok(), "sly", "{}", run.stderr);
    let (first, second) = (docker.inspect("sly"), docker.inspect("sly-again"));
    assert_eq!(first["Path"], second["Path"]);
    assert_eq!(first["Args"], second["Args"]);
    // One that gets no wire must not take the label for its own.
    docker.start(&["--name", "sly-host", "--network", "host", "sly-image", "sleep", "1000"]);
    assert!(selvedge.shown("sly-host").is_none());
    assert_eq!(docker.inspect("sly-host")["State"]["Running"], true);
    docker.remove(&["sly", "sly-again", "sly-host"]);
    docker.run(&["rmi", "sly-image"]).ok();
}

/// Where the guide says that a trace is left, there is this one and no other.
#[test]
fn what_the_guide_says_is_left_is_all_that_is_left() {
    let lab = Lab::shared();
    let (docker, direct) = (lab.selvedge.docker(), lab.engine.docker());
    docker.run(&["run", "--name", "trace", "busybox", "true"]).ok();
    direct.run(&["run", "--name", "bare", "busybox", "true"]).ok();
    let files = |docker: &Docker, script: &str| -> Vec<String> {
        docker.script(script, b"").ok().lines().map(str::to_owned).collect()
    };
    let export = "docker export NAME | tar -tv | grep -v busybox$ | awk '{print $1, $3, $6}' | sort";
    let exported = || {
        (files(&direct, &export.replace("NAME", "bare")), files(&docker, &export.replace("NAME", "trace")))
    };
    let (plain, ours) = exported();
    assert_eq!(ours, plain, "nothing before a copy");
    // For a copy the engine itself mounts what a container that does not run has mounted.
    docker.run(&["cp", "trace:/etc/hostname", "-"]);
    direct.run(&["cp", "bare:/etc/hostname", "-"]);
    let (plain, mut ours) = exported();
    let left = ours.iter().position(|file| file.ends_with("dev/.selvedge-wait"));
    let left = ours.remove(left.expect("the guide says that it is there"));
    assert!(left.starts_with('-') && left.contains(" 0 "), "an empty file: {left}");
    assert_eq!(ours, plain);
    docker.remove(&["trace", "bare"]);
}

#[test]
fn one_disconnected_from_its_network_keeps_its_wire_and_ps_shows_it() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "cut-off", "busybox", "sleep", "1000"]);
    let address = docker.address("cut-off");
    docker.run(&["network", "disconnect", "bridge", "cut-off"]).ok();
    let networks = &docker.inspect("cut-off")["NetworkSettings"]["Networks"];
    assert_eq!(networks.as_object().map(serde_json::Map::len), Some(0), "{networks}");
    assert_eq!(lab.selvedge.shown("cut-off").expect("it is shown")["address"], address);
    assert_eq!(lab.host.resolve("cut-off"), [address]);
    docker.remove(&["cut-off"]);
}
