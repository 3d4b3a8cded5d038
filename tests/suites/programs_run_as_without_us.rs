//! Programs start, fail, end and are shown as without us: directly and through Selvedge, by each CLI installed.

use std::path::Path;
use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::compare;
use selvedge_tests::docker::Docker;
use selvedge_tests::http;
use selvedge_tests::wait::until_true;
use serde_json::Value;

/// One script, directly and through Selvedge, by each CLI that is installed.
fn same(script: &str) {
    let lab = Lab::shared();
    for program in Docker::programs() {
        let direct = lab.engine.docker().with_program(program);
        let through = lab.selvedge.docker().with_program(program);
        compare::same(&format!("{program}: {script}"), &direct, &through, script);
    }
}

/// The same without what Selvedge shows on purpose: another address, and a hostname that is a name.
fn bare(mut inspect: Value) -> String {
    for path in ["Pid", "StartedAt", "FinishedAt"] {
        inspect["State"][path] = Value::Null;
    }
    let networks = inspect["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    for key in ["IPAddress", "MacAddress", "IPPrefixLen", "SandboxKey"] {
        inspect["NetworkSettings"][key] = Value::Null;
        for name in networks.keys() {
            inspect["NetworkSettings"]["Networks"][name][key] = Value::Null;
        }
    }
    for key in ["GraphDriver", "Created", "HostnamePath", "HostsPath", "LogPath", "ResolvConfPath"] {
        inspect[key] = Value::Null;
    }
    compare::normalised(&serde_json::to_string_pretty(&inspect).expect("JSON"))
}

fn same_inspect(arguments: &[&str]) {
    let lab = Lab::shared();
    let seen = [lab.engine.docker(), lab.selvedge.docker()].map(|docker| {
        let id = docker.run(&[&["create"], arguments].concat()).ok().to_owned();
        let mut states = vec![bare(docker.inspect(&id))];
        let started = docker.run(&["start", &id]);
        states.push(format!("{} {}", started.code, compare::normalised(&started.stderr)));
        states.push(bare(docker.inspect(&id)));
        docker.run(&["kill", &id]);
        docker.run(&["wait", &id]);
        states.push(bare(docker.inspect(&id)));
        docker.remove(&[&id]);
        states
    });
    let [direct, through] = seen;
    for (direct, through) in direct.iter().zip(&through) {
        assert!(direct == through, "{arguments:?}\n{}", difference(direct, through));
    }
}

fn difference(direct: &str, through: &str) -> String {
    let only = |text: &str, other: &str, mark: &str| -> String {
        let lines = text.lines().filter(|line| !other.lines().any(|same| same == *line));
        lines.map(|line| format!("{mark} {line}\n")).collect()
    };
    only(direct, through, "only directly:") + &only(through, direct, "only through Selvedge:")
}

#[test]
fn inspect_shows_the_container_that_the_user_asked_for() {
    let name = ["--name", "same-inspect", "--hostname", "own"];
    let cases: [&[&str]; 7] = [
        &["busybox", "sleep", "1000"],
        &[
            "-l",
            "a=b c",
            "-l",
            "x",
            "-e",
            "A=1",
            "-v",
            "/tmp:/data:ro",
            "busybox",
            "sh",
            "-c",
            "sleep 100 # 'x'",
        ],
        &["--entrypoint", "sleep", "--mount", "type=tmpfs,target=/x", "busybox", "1000"],
        &[
            "--dns",
            "10.9.9.9",
            "--dns-search",
            "a.example",
            "--dns-opt",
            "ndots:3",
            "busybox",
            "sleep",
            "1000",
        ],
        &["--network", "none", "--init", "--user", "65534", "busybox", "sleep", "1000"],
        &["--tmpfs", "/tmp", "--read-only", "--restart", "on-failure:3", "busybox", "sleep", "1000"],
        &["-it", "-w", "/tmp", "--cap-drop", "ALL", "busybox"],
    ];
    for case in cases {
        same_inspect(&[&name, case].concat());
    }
}

#[test]
fn inspect_shows_a_missing_program_as_the_engine_would() {
    let name = ["--name", "same-inspect-missing", "--hostname", "own"];
    for program in ["nothing-such", "/nothing/such", "/etc/passwd", "/etc"] {
        same_inspect(&[&name, ["--restart", "always", "busybox", program].as_slice()].concat());
    }
}

#[test]
fn the_list_shows_the_users_command() {
    same(
        r#"
        trap 'docker rm -f list-a list-b list-c list-d list-e >/dev/null' EXIT
        docker run -d --name list-a busybox sh -c 'sleep 1000; echo  two  blanks' a "b c" '' d
        docker run -d --name list-b --entrypoint sleep busybox 1000
        docker run -d --name list-c -v /tmp:/t -l k=v busybox sleep 1000
        docker create --name list-d busybox
        docker create --name list-e --entrypoint "/some path/to it" busybox -x
        sleep 1
        docker ps -a --no-trunc --filter name=list- --format '{{.Names}}|{{.Command}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Labels}}|{{.State}}|{{.Networks}}|{{.Image}}|{{.Ports}}'
        docker ps -a --filter name=list- --format '{{.Names}} {{.Command}}'
        docker ps -aq --filter label=k=v --filter name=list- | wc -l
    "#,
    );
}

#[test]
fn a_container_has_changed_nothing_when_its_program_has_not() {
    same(
        r#"
        trap 'docker rm -f diff-a diff-b diff-c diff-d >/dev/null' EXIT
        docker run -d --name diff-a busybox sleep 1000 >/dev/null
        docker run --name diff-b --read-only busybox true
        docker run --name diff-c busybox touch /tmp/x
        docker create --name diff-d busybox true >/dev/null
        for c in a b c d; do echo $c; docker diff diff-$c; done
    "#,
    );
}

#[test]
fn an_export_and_a_copy_hold_nothing_of_ours() {
    same(
        r#"
        trap 'docker rm -f export-a >/dev/null' EXIT
        docker run --name export-a busybox true
        docker export export-a | tar -t | sort
        docker cp export-a:/etc - | tar -t | sort
        docker diff export-a
    "#,
    );
}

#[test]
fn a_committed_image_runs_without_selvedge() {
    let lab = Lab::shared();
    let (direct, through) = (lab.engine.docker(), lab.selvedge.docker());
    through.start(&[
        "--name",
        "commit-a",
        "-l",
        "mine=1",
        "busybox",
        "sh",
        "-c",
        "echo ran $0 $#; sleep 1000",
        "a",
        "b c",
    ]);
    through.start(&["--name", "commit-b", "--entrypoint", "echo", "busybox", "from the entrypoint"]);
    through.run(&["commit", "commit-a", "commit-plain"]).ok();
    through
        .run(&[
            "commit",
            "--change",
            "CMD [\"echo\",\"changed\"]",
            "--change",
            "ENV X=y",
            "commit-a",
            "commit-cmd",
        ])
        .ok();
    through.run(&["commit", "--change", "ENTRYPOINT [\"echo\",\"entry\"]", "commit-a", "commit-entry"]).ok();
    through.run(&["commit", "--change", "LABEL l=m", "commit-b", "commit-label"]).ok();
    for (image, says) in [("commit-cmd", "changed"), ("commit-label", "from the entrypoint")] {
        for docker in [&direct, &through] {
            assert_eq!(docker.run(&["run", "--rm", image]).ok(), says, "{image}");
        }
    }
    assert!(direct.run(&["run", "--rm", "commit-entry"]).ok().starts_with("entry"));
    direct.start(&["--name", "commit-c", "commit-plain"]);
    until_true("the committed command runs", Duration::from_secs(10), || {
        direct.run(&["logs", "commit-c"]).stdout.trim() == "ran a 1"
    });
    for image in ["commit-plain", "commit-cmd", "commit-entry", "commit-label"] {
        let text = direct.run(&["image", "inspect", "--format", "{{json .Config}}", image]).ok().to_owned();
        let config: Value = serde_json::from_str(&text).expect("JSON");
        assert!(!config["Entrypoint"].to_string().contains("selvedge"), "{text}");
        assert!(!config["Cmd"].to_string().contains("selvedge"), "{text}");
        let shown = through.run(&["image", "inspect", "--format", "{{json .Config}}", image]).ok().to_owned();
        assert!(!shown.contains("selvedge"), "{shown}");
    }
    through.remove(&["commit-a", "commit-b", "commit-c"]);
    through.run(&["rmi", "commit-plain", "commit-cmd", "commit-entry", "commit-label"]);
}

#[test]
fn a_committed_image_is_the_one_that_the_engine_makes() {
    same(
        r#"
        trap 'docker rm -f commit-same >/dev/null; docker rmi commit-same-image >/dev/null' EXIT
        docker run --hostname own -l mine=1 -e A=b --name commit-same busybox sh -c 'echo x >/x'
        docker commit -m text -a me commit-same commit-same-image >/dev/null
        docker image inspect --format '{{json .Config.Cmd}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{json .Config.Labels}} {{.Author}} {{.Comment}} {{json .Config.Volumes}}' commit-same-image
        docker run --rm commit-same-image cat /x
        docker rm commit-same >/dev/null
        docker create --name commit-same commit-same-image >/dev/null
        docker inspect --format '{{.Path}} {{json .Args}} {{json .Config.Labels}}' commit-same
    "#,
    );
}

#[test]
fn entrypoint_and_command_mean_what_they_mean_to_the_engine() {
    same(
        r#"
        trap 'docker rmi entry-image >/dev/null; docker rm -f entry-b >/dev/null' EXIT
        docker create --name entry-b busybox >/dev/null
        docker commit --change 'ENTRYPOINT ["echo","of the image"]' --change 'CMD ["and","its command"]' entry-b entry-image >/dev/null
        docker run --rm entry-image
        docker run --rm entry-image users own
        docker run --rm --entrypoint "" entry-image; echo $?
        docker run --rm --entrypoint "" entry-image echo without
        docker run --rm --entrypoint printf entry-image '%s-' a b
        docker run --rm --entrypoint echo entry-image; echo $?
        docker run --rm --entrypoint "" busybox echo plain
        docker run --rm busybox </dev/null; echo $?
        for args in '' '--entrypoint=' '--entrypoint=echo'; do
            docker rm -f entry-b >/dev/null
            docker create --name entry-b $args entry-image >/dev/null
            docker inspect --format '{{.Path}} {{json .Args}} {{json .Config.Entrypoint}} {{json .Config.Cmd}}' entry-b
        done
    "#,
    );
}

#[test]
fn an_image_without_any_command_is_refused_in_the_engines_words() {
    same(
        r#"
        trap 'docker rmi no-command-image >/dev/null' EXIT
        tar -C /etc -c hostname | docker import - no-command-image >/dev/null
        docker create no-command-image; echo $?
        docker run no-command-image; echo $?
        docker run -d --entrypoint "" no-command-image; echo $?
        docker create no-such-image-at-all-here.invalid:1 2>/dev/null; echo $?
        docker run --pull=never --rm no-such-image.invalid/x 2>&1 | grep -c 'No such image' 
    "#,
    );
}

#[test]
fn commands_by_the_raw_api_may_be_words_or_lists() {
    let lab = Lab::shared();
    let bodies = [
        r#""Cmd":"true""#,
        r#""Entrypoint":"echo","Cmd":"x""#,
        r#""Entrypoint":["echo"],"Cmd":["a","b"]"#,
        r#""Entrypoint":[],"Cmd":["echo","x"]"#,
        r#""Entrypoint":[""],"Cmd":["echo","x"]"#,
        r#""Entrypoint":null,"Cmd":["echo","x"]"#,
        r#""Entrypoint":"","Cmd":["echo","x"]"#,
        r#""Cmd":null"#,
        r#""Cmd":[]"#,
        r#""Cmd":"""#,
        r#""Cmd":[""]"#,
        r#""Entrypoint":["",""],"Cmd":["x"]"#,
    ];
    for body in bodies {
        let sent = format!("{{\"Image\":\"busybox\",\"Hostname\":\"own\",\"HostConfig\":{{}},{body}}}");
        let direct = by_api(&lab.engine.docker(), &lab.engine.socket, &sent);
        let through = by_api(&lab.selvedge.docker(), &lab.socket(), &sent);
        assert!(direct == through, "{body}\n{}", difference(&direct, &through));
    }
}

/// Creates, inspects and starts by the API; all that was told.
fn by_api(docker: &Docker, socket: &Path, body: &str) -> String {
    let answer = http::post(socket, "/containers/create?name=raw-words", body).expect("an answer");
    if answer.status != 201 {
        return format!("{} {}", answer.status, answer.text());
    }
    let mut told = bare(docker.inspect("raw-words"));
    let started = http::post(socket, "/containers/raw-words/start", "").expect("an answer");
    told += &format!("{} {}\n", started.status, compare::normalised(&started.text()));
    if started.status == 204 {
        told += docker.run(&["wait", "raw-words"]).ok();
        told += &docker.run(&["logs", "raw-words"]).stdout;
    }
    docker.remove(&["raw-words"]);
    told
}

const MISSING: [&str; 7] =
    ["nothing-such", "/nothing/such", "./nothing", "/etc/passwd", "/etc", "'with blank'", "'with\"quote'"];

#[test]
fn run_of_a_program_that_cannot_be_run_fails_as_without_us() {
    for program in MISSING {
        same(&format!(
            r#"
            trap 'docker rm -f miss-run >/dev/null 2>&1' EXIT
            docker run --name miss-run busybox {program}; echo "code $?"
            docker ps -a --filter name=miss-run --format '{{{{.Names}}}} {{{{.Status}}}} {{{{.Command}}}}'
            docker inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}} {{{{.State.Error}}}} {{{{.State.Running}}}} {{{{.State.Pid}}}} {{{{.RestartCount}}}}' miss-run
            docker rm -f miss-run
            docker run --rm --name miss-run busybox {program}; echo "code $?"
            sleep 0.3
            docker ps -a --filter name=miss-run --format '{{{{.Names}}}} {{{{.Status}}}}'
        "#
        ));
    }
}

#[test]
fn run_in_the_background_and_start_fail_as_without_us() {
    for program in MISSING {
        same(&format!(
            r#"
            trap 'docker rm -f miss-start >/dev/null 2>&1' EXIT
            docker run -d --name miss-start busybox {program}; echo "code $?"
            docker ps -a --filter name=miss-start --format '{{{{.Names}}}} {{{{.Status}}}}'
            docker start miss-start; echo "code $?"
            docker start -a miss-start; echo "code $?"
            docker restart -t 1 miss-start; echo "code $?"
            docker inspect --format '{{{{.State.Status}}}} {{{{.State.ExitCode}}}} {{{{.State.Error}}}}' miss-start
            docker rm miss-start
            docker create --name miss-start --rm busybox {program} >/dev/null
            docker start miss-start; echo "code $?"
        "#
        ));
    }
}

#[test]
fn a_restart_policy_does_not_loop_on_a_missing_program() {
    same(
        r#"
        trap 'docker rm -f miss-always >/dev/null' EXIT
        docker run -d --restart always --name miss-always busybox nothing-such; echo $?
        sleep 2
        docker inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}} {{.State.Restarting}}' miss-always
        docker ps -a --filter name=miss-always --format '{{.Status}}'
    "#,
    );
}

#[test]
fn init_says_itself_that_a_program_is_missing() {
    for program in ["nothing-such", "/nothing/such", "/etc/passwd", "/etc"] {
        same(&format!(
            r#"
            docker run --rm --init busybox {program} >/tmp/init-out.$$ 2>&1; echo "code $?"
            sed 's/tini ([0-9]*)/tini/' /tmp/init-out.$$; rm /tmp/init-out.$$
        "#
        ));
    }
    same(
        r#"
        trap 'docker rm -f init-a >/dev/null' EXIT
        docker run --rm --init busybox echo hello
        docker run --rm --init busybox sh -c 'exit 7'; echo $?
        docker run -d --name init-a --init busybox sleep 1000 >/dev/null
        docker exec init-a cat /proc/1/comm
        docker top init-a -o pid,args | sed 's/^ *[0-9]* *//'
        docker stop -t 5 init-a
        docker inspect --format '{{.State.ExitCode}}' init-a
    "#,
    );
}

#[test]
fn a_text_without_an_interpreter_line_is_a_format_error() {
    same(
        r#"
        dir=$(mktemp -d /tmp/svt-text.XXXXXX); trap 'rm -rf $dir' EXIT
        echo 'echo text' >$dir/text; chmod 755 $dir/text
        printf '#!/no/such/interpreter\n' >$dir/script; chmod 755 $dir/script
        printf '#!/bin/sh\necho script $0 $1\n' >$dir/good; chmod 755 $dir/good
        : >$dir/empty; chmod 755 $dir/empty
        for program in text script good empty; do
            docker run --rm -v $dir:/t busybox /t/$program arg; echo "code $?"
        done
    "#,
    );
}

#[test]
fn programs_are_found_as_the_engine_finds_them() {
    same(
        r#"
        dir=$(mktemp -d /tmp/svt-path.XXXXXX); trap 'rm -rf $dir' EXIT
        printf '#!/bin/sh\necho own $0\n' >$dir/own; chmod 755 $dir/own
        printf '#!/bin/sh\necho wrong\n' >$dir/plain; chmod 644 $dir/plain
        mkdir $dir/sub $dir/sub/ls
        docker run --rm -v $dir:/t -w /t busybox ./own; echo $?
        docker run --rm -v $dir:/t -w /t busybox own; echo $?
        docker run --rm -v $dir:/t -w /t/sub busybox ../own; echo $?
        docker run --rm -v $dir:/t -w / busybox t/own; echo $?
        docker run --rm -v $dir:/t -e PATH=/t:/bin busybox own; echo $?
        docker run --rm -v $dir:/t -e PATH=/t busybox echo x; echo $?
        docker run --rm -v $dir:/t -e PATH= busybox echo x; echo $?
        docker run --rm -v $dir:/t -e PATH=/nowhere::/bin -w /t busybox own; echo $?
        docker run --rm -v $dir:/t -e PATH=/t/sub:/bin busybox ls /t/sub; echo $?
        docker run --rm -v $dir:/t -e PATH=/t busybox plain; echo $?
        docker run --rm -v $dir:/t -e PATH=t -w / busybox own; echo $?
        docker run --rm -w /new/dir busybox pwd
    "#,
    );
}

#[test]
fn the_program_gets_its_surroundings_untouched() {
    same(
        r#"
        docker run --rm --hostname own -e A=1 -e B='x y' -e C= busybox env | sort
        docker run --rm busybox sh -c 'ls -l /proc/self/fd | wc -l; grep -E "^(Sig[PBIC]|Shd)" /proc/1/status; ulimit -n'
        docker run --rm busybox cat /proc/1/comm
        docker run --rm busybox sh -c 'cat /proc/1/stat | cut -d" " -f1,4,5,6'
        docker run --rm busybox sh -c 'cat /proc/1/oom_score_adj; umask; id; pwd'
        docker run --rm --user 65534:65534 --read-only busybox sh -c 'id; touch /x'; echo $?
        docker run --rm --user nobody --cap-drop ALL busybox sh -c 'id; grep Cap /proc/self/status'; echo $?
        docker run --rm --security-opt no-new-privileges busybox grep NoNewPrivs /proc/self/status
        docker run --rm --cap-drop ALL --security-opt no-new-privileges --user 1234 --read-only busybox echo all of them
        docker run --rm --privileged busybox sh -c 'echo privileged'
        docker run --rm --pid=host busybox echo host pids; echo $?
        docker run --rm --network none busybox echo none
        docker run --rm --ipc none --tmpfs /tmp --shm-size 1m busybox sh -c 'echo x >/tmp/x; cat /tmp/x'
        docker run --rm --ulimit nofile=20:20 --memory 32m --pids-limit 5 busybox sh -c 'ulimit -n'
        printf 'in\nput' | docker run --rm -i busybox cat
        docker run --rm -t busybox tty
        docker run --rm busybox sh -c 'exit 42'; echo $?
        docker run --rm busybox sh -c 'kill -9 $$'; echo $?
    "#,
    );
}

#[test]
fn a_program_shares_the_hosts_devices_without_a_file_left_there() {
    same(
        r#"
        docker run --rm -v /dev:/dev busybox ls /dev/null; echo $?
        docker run --rm --mount type=bind,source=/dev,target=/dev busybox echo x; echo $?
        docker run --rm --tmpfs /dev:exec busybox echo x; echo $?
        ls -a /dev | grep -c selvedge
    "#,
    );
}

#[test]
fn many_variables_and_long_arguments_arrive() {
    same(
        r#"
        set --; i=0
        while [ $i -lt 1500 ]; do set -- "$@" -e "VARIABLE_$i=value of number $i"; i=$((i+1)); done
        docker run --rm --hostname own "$@" busybox env | sort | cksum
        set --; i=0
        while [ $i -lt 3000 ]; do set -- "$@" "argument $i"; i=$((i+1)); done
        docker run --rm busybox sh -c 'echo $# "$1" "${2999}"; echo "$@" | cksum' x "$@"
        long=$(head -c 100000 /dev/zero | tr '\0' a)
        docker run --rm busybox sh -c 'echo ${#1}' x "$long"
        docker run --rm busybox sh -c 'printf %s "$1" | cksum' x "$(printf 'ümlaut \t tab \\ back "quote" \001')"
    "#,
    );
}

#[test]
fn top_shows_the_users_program_alone() {
    same(
        r#"
        trap 'docker rm -f top-a top-b >/dev/null' EXIT
        docker run -d --name top-a busybox sleep 1000 >/dev/null
        docker run -d --name top-b busybox sh -c 'sleep 1000 & exec sleep 1001' >/dev/null
        sleep 0.5
        docker top top-a -o pid,comm,args | sed 's/^ *[0-9]* *//'
        docker top top-b -o pid,comm,args | sed 's/^ *[0-9]* *//'
        docker exec top-a ps -o comm,args | grep -v ' ps'
        docker exec top-a sh -c 'ls -l /proc/1/exe | sed "s/.*->//"; tr "\0" " " </proc/1/cmdline'
    "#,
    );
}

#[test]
fn signals_reach_the_program_and_a_stop_has_its_grace() {
    same(
        r#"
        trap 'docker rm -f sig-a sig-b sig-c >/dev/null' EXIT
        run() { docker run -d --name $1 busybox sh -c "$2" >/dev/null; until docker logs $1 2>&1 | grep -q ready; do sleep 0.05; done; }
        code() { docker inspect --format '{{.State.ExitCode}} {{.State.Status}} {{.State.OOMKilled}}' $1; }
        run sig-a 'trap "echo got term; exit 5" TERM; trap "echo got usr1" USR1; trap "echo got hup" HUP; echo ready; while :; do sleep 0.1; done'
        docker kill -s USR1 sig-a; sleep 0.3; docker kill -s HUP sig-a; sleep 0.3
        docker stop -t 5 sig-a; code sig-a; docker logs sig-a
        run sig-b 'trap "" TERM; echo ready; while :; do sleep 0.1; done'
        began=$(date +%s); docker stop -t 1 sig-b; [ $(( $(date +%s) - began )) -lt 5 ] && echo soon; code sig-b
        docker run -d --name sig-c --init busybox sh -c 'echo ready; exec sleep 1000' >/dev/null
        sleep 0.3; docker stop -t 5 sig-c; code sig-c
        docker rm -f sig-c >/dev/null
        docker run -d --name sig-c --stop-signal KILL busybox sleep 1000 >/dev/null; docker stop sig-c; code sig-c
        docker restart -t 0 sig-c; code sig-c; docker kill sig-c; docker wait sig-c; code sig-c
        docker kill sig-c; echo $?
    "#,
    );
}

#[test]
fn a_container_can_be_stopped_and_started_many_times() {
    same(
        r#"
        trap 'docker rm -f again-a >/dev/null' EXIT
        docker run --name again-a busybox sh -c 'echo x >>/count; wc -l </count'
        for i in 1 2 3; do docker start -a again-a; done
        docker restart again-a; docker wait again-a; docker logs again-a
        docker diff again-a
    "#,
    );
}

/// A text somewhere in what Selvedge answers; empty where there is none.
fn state(path: &str, pointer: &str) -> String {
    let text = http::get(&Lab::shared().socket(), path).expect("an answer").text();
    let json: Value = serde_json::from_str(&text).expect("JSON");
    json.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[test]
fn a_missing_program_is_never_shown_as_running() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    for round in 0..3 {
        let name = format!("never-runs-{round}");
        docker.run(&["create", "--name", &name, "busybox", "/nonexistent"]).ok();
        for again in ["Created", "once more"] {
            let start = docker.spawn(&["start", &name]);
            let (mut seen, mut start) = (0, start);
            while start.try_wait().expect("it is ours").is_none() {
                assert_eq!(state(&format!("/containers/{name}/json"), "/State/Status"), "created", "{again}");
                let filter = format!("%7B%22name%22%3A%5B%22{name}%22%5D%7D");
                let listed = state(&format!("/containers/json?all=1&filters={filter}"), "/0/State");
                assert!(["created", "exited"].contains(&listed.as_str()), "{again}: {listed}");
                assert_eq!(state(&format!("/containers/json?filters={filter}"), "/0/State"), "", "{again}");
                seen += 1;
            }
            assert!(seen > 0, "nothing was looked at");
            assert_eq!(docker.inspect(&name)["State"]["ExitCode"], 127);
        }
        docker.remove(&[&name]);
    }
}
