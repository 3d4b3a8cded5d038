//! What engines newer than any here do (API 1.52 and on): clients of those find it through Selvedge too. A stand-in before a
//! real engine of today does it (`tests/src/tomorrow.rs`), since there is no real one of tomorrow to be had.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use nix::sys::signal::Signal;
use selvedge_tests::engine::Engine;
use selvedge_tests::exchange::exchange;
use selvedge_tests::grpc::{self, Client, Server};
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::likeness::differences;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::tomorrow::{self, Behind, EARLY};
use selvedge_tests::wait::until_true;
use serde_json::Value;

/// An engine of tomorrow, and a Selvedge before that. Dropped in this order.
struct Lab {
    selvedge: Selvedge,
    grpc: Server,
    socket: PathBuf,
    engine: Engine,
    host: Host,
}

impl Lab {
    fn new(arguments: &[&str]) -> Self {
        Self::of(|host| Engine::debian(host, &["--live-restore"]), (41, None), arguments)
    }

    /// Trixie's engine, of which this is the oldest version.
    fn with_oldest(oldest: u32, arguments: &[&str]) -> Self {
        Self::of(|host| Engine::trixie(host, &[]), (45, Some(oldest)), arguments)
    }

    fn of(
        engine: impl FnOnce(&Host) -> Engine,
        (newest, oldest): (u32, Option<u32>),
        arguments: &[&str],
    ) -> Self {
        let host = Host::new();
        let engine = engine(&host);
        let grpc = Server::start(host.path("grpc.sock"));
        let behind = Behind { grpc: grpc.socket.clone(), newest, oldest, ..Behind::engine(&engine.socket) };
        let socket = tomorrow::start(host.path("tomorrow.sock"), &behind);
        let selvedge = Selvedge::prepare(&host, &socket, arguments);
        selvedge.start_again();
        Self { selvedge, grpc, socket, engine, host }
    }
}

#[test]
fn interim_answers_of_any_kind_are_passed_on() {
    let lab = Lab::new(&[]);
    lab.engine.docker().start(&["--name", "there", "busybox", "sleep", "1000"]);
    let head = |line: &str, fields: &str| format!("{line}\r\nHost: d\r\n{EARLY}\r\n{fields}\r\n");
    let create = r#"{"Image":"busybox"}"#;
    let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", create.len());
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n";
    for (head, body) in [
        (head("GET /_ping HTTP/1.1", ""), ""),
        (head("GET /containers/there/json HTTP/1.1", ""), ""),
        (head("POST /containers/create HTTP/1.1", &json), create),
        (head("GET /containers/there/logs?stdout=1 HTTP/1.1", ""), ""),
        (head("POST /containers/there/attach?stream=1&stdout=1 HTTP/1.1", upgrade), ""),
        (head("GET /events?since=1&until=2 HTTP/1.1", ""), ""),
    ] {
        let [plain, ours] = [&lab.socket, &lab.selvedge.socket()]
            .map(|socket| exchange(socket, (head.as_bytes(), body.as_bytes()), false));
        assert_eq!(plain.interim, [103], "the engine sent none: {head}");
        assert_eq!(differences(&plain, &ours, true), [""; 0], "{head}");
    }
}

#[test]
fn grpc_on_the_engines_socket_outlives_an_upgrade_and_killed_workers() {
    let lab = Lab::new(&[]);
    grpc::runtime().block_on(calls(&lab));
    assert_eq!(lab.grpc.connections(), 1, "its client had to connect again");
}

const MANY: u32 = 400;

/// Calls of each kind on one connection: before, and while workers come and go. Their answers are all there, in order.
async fn calls(lab: &Lab) {
    let client = Client::connect(&lab.selvedge.socket()).await.expect("HTTP/2");
    assert_eq!(client.say(b"before").await.expect("an answer"), b"before");
    let counted = tokio::spawn(client.count(MANY).await.expect("a stream").collect::<Vec<_>>());
    let (words, heard) = tokio::sync::mpsc::unbounded_channel();
    let spoken =
        futures_util::stream::unfold(heard, |mut heard| async { Some((heard.recv().await?, heard)) });
    let mut talk = client.talk(spoken).await.expect("a stream");
    let steps: [&(dyn Fn() + Sync); 4] = [
        &|| (),
        &|| lab.selvedge.kill_worker(),
        &|| {
            lab.selvedge.ask(&["upgrade"]).ok();
        },
        &|| lab.selvedge.kill_worker(),
    ];
    for (number, step) in steps.iter().enumerate() {
        step();
        // More than a socket's buffer: what is under way at that instant is cut somewhere.
        let long = vec![u8::try_from(number).expect("few"); 1 << 20];
        words.send(long.clone()).expect("it is heard");
        let answer = talk.next().await.expect("no end").expect("an answer");
        assert!(answer == long, "after step {number}: {} bytes", answer.len());
        assert_eq!(client.say(b"between").await.expect("an answer"), b"between", "after step {number}");
    }
    drop(words);
    assert!(talk.next().await.is_none(), "a half that ends is passed on");
    let counted = counted.await.expect("the task ends");
    let numbers: Vec<String> = counted
        .into_iter()
        .map(|number| String::from_utf8(number.expect("a number")).expect("text"))
        .collect();
    assert_eq!(numbers, (0..MANY).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// The forms of events, by what a client accepts, and how each record begins.
const FORMS: [(&str, &str, &str); 4] = [
    // As moby's own client asks.
    ("Accept: application/json-seq\r\nAccept: application/x-ndjson\r\n", "application/x-ndjson", ""),
    ("Accept: application/json-seq\r\n", "application/json-seq", "\x1e"),
    ("Accept: application/jsonl\r\n", "application/jsonl", ""),
    ("", "application/json", ""),
];

#[test]
fn events_go_on_in_the_form_that_was_asked_for_over_an_engines_restart() {
    let lab = Lab::new(&[]);
    let streams = FORMS.map(|(accept, kind, mark)| {
        let mut stream = http::connect(&lab.selvedge.socket()).expect("it listens");
        let head = format!("GET /v1.53/events?filters=%7B%22event%22%3A%5B%22create%22%5D%7D HTTP/1.1\r\nHost: d\r\n{accept}\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        assert!(head.contains(&format!("Content-Type: {kind}")), "{accept}: {head:?}");
        (lines, mark)
    });
    let docker = lab.selvedge.docker();
    docker.run(&["create", "--name", "before", "busybox", "true"]).ok();
    lab.engine.end(Signal::SIGKILL);
    lab.engine.start_again();
    docker.run(&["create", "--name", "after", "busybox", "true"]).ok();
    for (mut lines, mark) in streams {
        for name in ["before", "after"] {
            let line = lines.next().expect("no end");
            let record = line.strip_prefix(mark).expect("its mark");
            let event: Value = serde_json::from_str(record).expect("nothing but JSON");
            assert_eq!(
                (&event["Action"], &event["Actor"]["Attributes"]["name"]),
                (&"create".into(), &name.into())
            );
            assert!(event.get("status").is_none(), "{event}");
        }
    }
}

#[test]
fn an_inspect_without_an_address_at_its_top_shows_the_wires_where_it_has_one() {
    let lab = Lab::new(&[]);
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "web", "busybox", "sleep", "1000"]);
    let inspect = get(&lab.selvedge.socket(), "/v1.53/containers/web/json");
    let settings = inspect["NetworkSettings"].clone();
    assert_eq!(settings.get("IPAddress"), None, "the engine has none there: {settings}");
    let address = settings["Networks"]["bridge"]["IPAddress"].as_str().expect("an address");
    assert_eq!(lab.host.resolve("web"), [address]);
    // Through workers that learn of it by this engine's events alone.
    lab.selvedge.kill_worker();
    docker.run(&["rename", "web", "shop"]).ok();
    until_true("its new name is answered", Duration::from_secs(10), || lab.host.resolve("shop") == [address]);
}

fn get(socket: &Path, path: &str) -> Value {
    let answer = http::get(socket, path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_str(&answer.text()).expect("JSON")
}

fn post(socket: &Path, path: &str, body: &str) -> Value {
    let answer = http::post(socket, path, body).expect("an answer");
    assert!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
    serde_json::from_str(&answer.text()).unwrap_or_default()
}

/// As docker-py 2.x, dockerode of 2016 and traefik 1 have them, in the versions that those ask with.
const CREATES: [(u32, &str); 3] = [
    (
        24,
        r#"{"Image":"busybox","Cmd":["sleep","1000"],"Tty":false,"OpenStdin":false,"StdinOnce":false,"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Env":null,"Volumes":null,"NetworkDisabled":false,"Entrypoint":null,"Hostname":null,"Domainname":null,"User":null,"StopSignal":null,"MacAddress":null,"Labels":{"a":"b"},"HostConfig":{"NetworkMode":"default"},"NetworkingConfig":null}"#,
    ),
    (
        22,
        r#"{"AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"Tty":true,"OpenStdin":false,"StdinOnce":false,"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"Binds":[],"LxcConf":[],"RestartPolicy":{"Name":""}}}"#,
    ),
    (
        21,
        r#"{"Image":"busybox","Cmd":["sleep","1000"],"Memory":0,"HostConfig":{"Memory":0,"MemorySwappiness":-1}}"#,
    ),
];

#[test]
fn clients_of_old_are_served_by_an_engine_that_refuses_them() {
    let lab = Lab::with_oldest(44, &["--compat", "api-min=1.21"]);
    let (socket, refused) =
        (lab.selvedge.socket(), http::get(&lab.socket, "/v1.24/info").expect("an answer"));
    assert_eq!(refused.status, 400, "the engine takes them: {}", refused.text());
    for (version, create) in CREATES {
        let v = format!("/v1.{version}");
        assert_eq!(get(&socket, &format!("{v}/version"))["MinAPIVersion"], "1.21");
        let name = format!("old{version}");
        let made = post(&socket, &format!("{v}/containers/create?name={name}"), create);
        let id = made["Id"].as_str().expect("an id");
        post(&socket, &format!("{v}/containers/{id}/start"), "");
        let inspect = get(&socket, &format!("{v}/containers/{id}/json"));
        let address = inspect["NetworkSettings"]["IPAddress"].as_str().expect("at the top").to_owned();
        assert_eq!(lab.host.resolve(&name), [address], "1.{version}");
        // Short ones, streams, and held ones that end.
        let filters = "filters=%7B%22name%22%3A%5B%22old%22%5D%7D";
        assert!(
            get(&socket, &format!("{v}/containers/json?{filters}"))
                .as_array()
                .is_some_and(|all| !all.is_empty())
        );
        let exec =
            post(&socket, &format!("{v}/containers/{id}/exec"), r#"{"Cmd":["true"],"AttachStdout":true}"#);
        assert_eq!(
            get(&socket, &format!("{v}/exec/{}/json", exec["Id"].as_str().expect("an id")))["Running"],
            false
        );
        post(&socket, &format!("{v}/containers/{id}/kill"), "");
        assert_eq!(post(&socket, &format!("{v}/containers/{id}/wait"), "")["StatusCode"], 137);
        http::get(&socket, &format!("{v}/containers/{id}/logs?stdout=1")).expect("an answer");
    }
    // What was left out of answers since, and words that are not understood any more.
    let image = get(&socket, "/v1.24/images/busybox/json");
    assert_eq!((&image["VirtualSize"], image["Size"].is_u64()), (&image["Size"], true));
    assert_eq!(get(&socket, "/v1.44/images/busybox/json").get("VirtualSize"), None, "today's has none");
    let busybox = get(&socket, "/v1.24/images/json?only_ids=0&all=0&filter=busybox");
    assert_eq!(busybox.as_array().map(Vec::len), Some(1));
    assert_eq!(busybox[0]["VirtualSize"], busybox[0]["Size"]);
    assert_eq!(get(&socket, "/v1.24/images/json?filter=none").as_array().map(Vec::len), Some(0));
}

#[test]
fn clients_older_than_that_are_refused_in_dockers_words() {
    let lab = Lab::with_oldest(44, &["--compat", "api-min=1.24"]);
    let socket = lab.selvedge.socket();
    let answer = http::get(&socket, "/v1.21/info").expect("an answer");
    let told: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let message = told["message"].as_str().expect("a message");
    assert_eq!(answer.status, 400);
    assert!(
        message.contains("client version 1.21 is too old. Minimum supported API version is 1.24"),
        "{message}"
    );
    // A start with what was a create's: no engine of today knows how.
    let made = post(&socket, "/v1.24/containers/create", r#"{"Image":"busybox","Cmd":["true"]}"#);
    let start = format!("/v1.24/containers/{}/start", made["Id"].as_str().expect("an id"));
    let answer = http::post(&socket, &start, r#"{"Privileged":false}"#).expect("an answer");
    assert_eq!(answer.status, 400, "{}", answer.text());
    // The next worker goes on as this one.
    lab.selvedge.kill_worker();
    get(&socket, "/v1.24/info");
}
