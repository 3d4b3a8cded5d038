//! Nonsense, malice and misfortune: clear errors in Docker's form, no crash, no leak, and service goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http::{self, Answer, connect, read_head, status};
use selvedge_tests::selvedge::{Selvedge, descriptors};
use selvedge_tests::shell::run;
use selvedge_tests::wait::until_true;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

fn create(lab: &Lab, body: &str) -> Answer {
    http::post(&lab.socket(), "/v1.41/containers/create?name=bad", body).expect("an answer")
}

/// The message of an error in Docker's form.
fn message(answer: &Answer) -> String {
    let text = answer.text();
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    json["message"].as_str().unwrap_or_else(|| panic!("no message: {text:?}")).to_owned()
}

fn refused(answer: &Answer, code: u16, words: &str) {
    assert_eq!(answer.status, code, "{}{}", answer.head, answer.text());
    let message = message(answer);
    assert!(message.starts_with("selvedge: ") && message.contains(words), "{message}");
}

/// Refused, and as by the engine itself.
fn in_the_engines_words(lab: &Lab, body: &str) {
    let direct =
        http::post(&lab.engine.socket, "/v1.41/containers/create?name=bad", body).expect("an answer");
    let ours = create(lab, body);
    assert!(ours.status >= 400, "{body}: {}", ours.text());
    assert_eq!((ours.status, message(&ours)), (direct.status, message(&direct)), "{body}");
}

/// The same worker as before, and it serves.
fn still_serves(lab: &Lab, worker: u32) {
    assert_eq!(http::get(&lab.socket(), "/_ping").expect("an answer").status, 200);
    assert_eq!(lab.selvedge.worker(), worker, "the worker died");
    lab.selvedge.docker().run(&["run", "--rm", "busybox", "true"]).ok();
}

#[test]
fn bodies_that_are_no_json_are_refused() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    for body in ["{", "[]", "7", "\"x\"", "{\"Image\":}", "\u{feff}{}", "{\"Image\":7}", "nul"] {
        in_the_engines_words(lab, body);
    }
    for body in [
        "{\"Image\":\"busybox\",\"HostConfig\":7}",
        "{\"Image\":\"busybox\",\"Labels\":[]}",
        "{\"Image\":\"busybox\",\"Env\":{}}",
        "{\"Image\":\"busybox\",\"HostConfig\":{\"NetworkMode\":[]}}",
    ] {
        in_the_engines_words(lab, body);
    }
    let deep = "[".repeat(100_000) + &"]".repeat(100_000);
    // What is not ours to read is the engine's to refuse.
    let answer = create(lab, &format!("{{\"Image\":\"busybox\",\"x\":{deep}}}"));
    assert!(answer.status >= 400 && message(&answer).contains("max depth"), "{}", answer.text());
    let head =
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";
    let bytes = [head.as_bytes(), b"\xff\xfe{}"].concat();
    assert!(http::send(&lab.socket(), &bytes).expect("an answer").status >= 400);
    still_serves(lab, worker);
}

/// Sends up to `megabytes` of blanks in chunks, until nobody reads them any more.
fn blanks(mut upload: UnixStream, megabytes: usize) {
    let chunk = [b"100000\r\n".as_slice(), &[b' '; 1 << 20], b"\r\n"].concat();
    for _ in 0..megabytes {
        if upload.write_all(&chunk).is_err() {
            return;
        }
    }
}

#[test]
fn a_body_of_more_than_sixteen_mebibytes_is_refused_and_one_below_is_taken() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    let with =
        |size: usize| format!("{{\"Image\":\"busybox\",\"Labels\":{{\"x\":\"{}\"}}}}", "y".repeat(size));
    let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\n";
    for fields in ["Content-Length: 20971520\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n"] {
        let mut stream = connect(&lab.socket()).expect("it listens");
        stream.write_all([head, fields].concat().as_bytes()).expect("it reads");
        let upload = stream.try_clone().expect("a descriptor");
        std::thread::spawn(move || blanks(upload, 20));
        let (head, rest) = read_head(&mut stream).expect("an answer");
        let mut body = rest;
        let _ = stream.read_to_end(&mut body);
        refused(&Answer { status: status(&head), head, body }, 413, "16");
    }
    let taken = create(lab, &with(1 << 20));
    assert_eq!(taken.status, 201, "{}", taken.text());
    lab.selvedge.docker().remove(&["bad"]);
    still_serves(lab, worker);
}

#[test]
fn keys_twice_are_refused() {
    let lab = Lab::shared();
    for (body, key) in [
        (r#"{"Image":"busybox","Image":"busybox"}"#, "Image"),
        (r#"{"Image":"busybox","image":"busybox"}"#, "Image"),
        (r#"{"Image":"busybox","HostConfig":{},"hostconfig":{"NetworkMode":"host"}}"#, "HostConfig"),
        // Go folds the long s and the Kelvin sign, too.
        (r#"{"Image":"busybox","HostConfig":{},"Ho\u017ftConfig":{"NetworkMode":"host"}}"#, "HostConfig"),
        (r#"{"Image":"busybox","HostConfig":{"NetworkMode":"bridge","networkMode":"host"}}"#, "NetworkMode"),
        (
            r#"{"Image":"busybox","HostConfig":{"NetworkMode":"bridge","Networ\u212aMode":"host"}}"#,
            "NetworkMode",
        ),
        (r#"{"Image":"busybox","Entrypoint":["a"],"ENTRYPOINT":["b"]}"#, "Entrypoint"),
        (r#"{"Image":"busybox","Labels":{"selvedge.name":"a","selvedge.name":"b"}}"#, "selvedge.name"),
    ] {
        refused(&create(lab, body), 400, key);
    }
}

/// Creates a container by one of the two sockets; what any client sees of it, and whether it is one of ours.
fn created(lab: &Lab, through: bool, body: &str) -> (String, bool) {
    let socket = if through { lab.socket() } else { lab.engine.socket.clone() };
    let answer = http::post(&socket, "/containers/create?name=bad-case", body).expect("an answer");
    assert_eq!(answer.status, 201, "{body}: {}", answer.text());
    let fields = "{{.HostConfig.NetworkMode}} {{json .Config.Cmd}} {{json .Config.Entrypoint}}";
    let seen = lab.selvedge.docker().run(&["inspect", "--format", fields, "bad-case"]).ok().to_owned();
    let raw = lab.engine.docker().inspect("bad-case");
    lab.selvedge.docker().remove(&["bad-case"]);
    (seen, raw["Config"]["Labels"].get("selvedge.internal.wire").is_some())
}

#[test]
fn keys_in_another_case_mean_to_us_what_they_mean_to_the_engine() {
    let lab = Lab::shared();
    for body in [
        r#"{"image":"busybox","hostconfig":{"networkmode":"host"}}"#,
        r#"{"IMAGE":"busybox","HOSTCONFIG":{"NETWORKMODE":"bridge"},"cmd":["true"]}"#,
        r#"{"Image":"busybox","Ho\u017ftConfig":{"NetworkMode":"host"}}"#,
        r#"{"Image":"busybox","HostConfig":{"Networ\u212amode":"none"},"entrypoint":"true"}"#,
        r#"{"Image":"busybox","HostConfig":null,"Labels":null,"Env":null}"#,
        r#"{"Image":"busybox","NoSuchKey":{"HostConfig":{"NetworkMode":"host"}},"Memory":9007199254740993}"#,
    ] {
        let (direct, _) = created(lab, false, body);
        let (through, ours) = created(lab, true, body);
        assert_eq!(direct, through, "{body}");
        assert_eq!(ours, !direct.starts_with("host"), "{body}: {direct}");
    }
}

#[test]
fn labels_of_ours_that_make_no_sense_are_refused() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let long = format!("selvedge.name={}", "x".repeat(64));
    for label in [
        "selvedge.nosuch=1",
        "selvedge.=1",
        "selvedge.network=maybe",
        "selvedge.ip=10.32.7",
        "selvedge.ip=::1",
        "selvedge.ip=",
        "selvedge.name=",
        "selvedge.name=a!",
        "selvedge.name=a..b",
        "selvedge.tenant=",
        "selvedge.port.http=http",
        "selvedge.port.http=70000",
        "selvedge.internal.wire={}",
        "selvedge.internal.x=1",
        &long,
    ] {
        let out = docker.run(&["create", "--label", label, "busybox", "true"]);
        let key = label.split('=').next().expect("a key");
        assert_eq!(out.code, 1, "{label} was taken");
        let told = "Error response from daemon: selvedge: label";
        assert!(out.stderr.contains(told) && out.stderr.contains(key), "{}", out.stderr);
    }
}

#[test]
fn garbage_on_the_socket_is_answered_or_closed() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    let mut answered = 0;
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /_ping\r\n\r\n",
        b"GET /_ping HTTP/9.9\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /containers/%zz/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"GET /containers/%ff/json HTTP/1.1\r\nHost: d\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip\r\n\r\n{}",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ] {
        let told = String::from_utf8_lossy(bytes).into_owned();
        let mut stream = connect(&lab.socket()).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        stream.shutdown(Shutdown::Write).expect("half a close");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_else(|error| panic!("{told:?}: {error}"));
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // To HTTP/2's preface the engine answers with a redirect.
        assert!(answer.is_empty() || status(&answer) >= 301, "{told:?}: {answer}");
        answered += u32::from(!answer.is_empty());
    }
    assert!(
        answered >= 12,
        "only {answered} were answered: a Selvedge that closes all connections would be no better"
    );
    still_serves(lab, worker);
}

#[test]
fn floods_of_header_fields_are_refused() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    let field = "X-Flood: 0123456789\r\n";
    for fields in [field.repeat(60_000), format!("X-Long: {}\r\n", "y".repeat(2 << 20))] {
        let mut stream = connect(&lab.socket()).expect("it listens");
        let request = format!("GET /_ping HTTP/1.1\r\nHost: d\r\n{fields}\r\n");
        let mut writer = stream.try_clone().expect("a descriptor");
        std::thread::spawn(move || writer.write_all(request.as_bytes()));
        let (head, _) = read_head(&mut stream).expect("an answer");
        assert_eq!(status(&head), 431, "{head}");
    }
    // A keyring, and as many fields as the engine takes.
    for fields in [format!("X-Registry-Config: {}\r\n", "z".repeat(300_000)), field.repeat(20_000)] {
        let taken = format!("GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{fields}\r\n");
        assert_eq!(http::send(&lab.socket(), taken.as_bytes()).expect("an answer").status, 200);
    }
    still_serves(lab, worker);
}

#[test]
fn slow_clients_do_not_hold_up_others() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    let create = "POST /containers/create?name=bad-slow HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"Image\":\"busybox\"}";
    let mut slow: Vec<UnixStream> = (0..100).map(|_| connect(&lab.socket()).expect("it listens")).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /containers/json HTTP/1.1\r\nHo").expect("it reads");
    }
    let mut last = connect(&lab.socket()).expect("it listens");
    for byte in create.bytes() {
        last.write_all(&[byte]).expect("it reads");
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(http::get(&lab.socket(), "/_ping").expect("an answer").status, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (head, _) = read_head(&mut last).expect("an answer");
    assert_eq!(status(&head), 201, "{head}");
    lab.selvedge.docker().remove(&["bad-slow"]);
    still_serves(lab, worker);
}

#[test]
fn one_that_does_not_read_its_answers_holds_up_nobody() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    let many = "GET /info HTTP/1.1\r\nHost: d\r\n\r\n".repeat(500);
    let mut deaf: Vec<UnixStream> = (0..20).map(|_| connect(&lab.socket()).expect("it listens")).collect();
    for stream in &mut deaf {
        stream.set_nonblocking(true).expect("a flag");
        let _ = stream.write(many.as_bytes());
    }
    still_serves(lab, worker);
    drop(deaf);
    still_serves(lab, worker);
}

#[test]
fn ten_thousand_idle_connections_are_borne() {
    let lab = Lab::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert!(hard >= 11_000, "the limit of descriptors is {hard}: 10,000 connections cannot be opened");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(20_000), hard).expect("the soft limit can be raised");
    let worker = lab.selvedge.worker();
    let count = || descriptors(worker) + descriptors(lab.selvedge.keeper());
    let before = count();
    let mut idle = Vec::new();
    for number in 0..10_000 {
        let mut stream =
            connect(&lab.socket()).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        if number % 10 == 0 {
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").expect("it reads");
        }
        idle.push(stream);
    }
    let began = Instant::now();
    assert_eq!(http::get(&lab.socket(), "/_ping").expect("an answer").status, 200);
    println!("a ping beside 10,000 idle connections: {:?}", began.elapsed());
    still_serves(&lab, worker);
    let mut old = idle.swap_remove(10);
    let (head, _) = read_head(&mut old).expect("an answer");
    assert_eq!(status(&head), 200);
    drop(idle);
    // Up to 64 idle connections to the engine are kept for the next requests.
    until_true("the descriptors are back", PATIENCE, || count() <= before + 64 + 4);
    still_serves(&lab, worker);
}

/// KiB of memory that an idle connection may cost, in all processes together.
const IDLE: u64 = 10;

#[test]
fn a_thousand_connections_that_have_asked_and_are_idle_cost_ten_kibibytes_each_at_most() {
    let lab = Lab::new();
    let ask = || {
        let mut stream = connect(&lab.socket()).expect("it listens");
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").expect("it reads");
        assert_eq!(status(&read_head(&mut stream).expect("an answer").0), 200);
        stream
    };
    // What the first ones bring along stays.
    drop((0..10).map(|_| ask()).collect::<Vec<_>>());
    let before = lab.selvedge.memory();
    let idle: Vec<UnixStream> = (0..1000).map(|_| ask()).collect();
    let each = lab.selvedge.memory().saturating_sub(before) / 1000;
    assert!(each <= IDLE, "{each} KiB each");
    drop(idle);
}

#[test]
fn an_absent_engine_is_told_in_dockers_form_and_a_new_one_is_found() {
    let host = Host::new();
    let engine = Engine::debian(&host, &["--live-restore"]);
    let selvedge = Selvedge::prepare(&host, &engine.socket, &["--engine-wait", "1s"]);
    selvedge.start_again();
    let lab = Lab { selvedge, engine, host };
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "bad-engine", "busybox", "sleep", "1000"]);
    let address = docker.address("bad-engine");
    let worker = lab.selvedge.worker();
    let inode = std::fs::metadata(&lab.engine.socket).expect("a socket").ino();
    lab.engine.end(Signal::SIGTERM);
    for (method, path) in [
        ("GET", "/_ping"),
        ("GET", "/containers/json"),
        ("GET", "/containers/bad-engine/json"),
        ("GET", "/events"),
        ("POST", "/containers/bad-engine/restart"),
        ("POST", "/containers/bad-engine/wait"),
    ] {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let answer = http::send(&lab.socket(), request.as_bytes()).expect("an answer");
        refused(&answer, 503, "engine");
    }
    assert_eq!(create(&lab, "{\"Image\":\"busybox\"}").status, 503);
    assert_eq!(lab.selvedge.status()["engine"]["up"], false);
    assert_eq!(lab.host.resolve("bad-engine"), [address.as_str()], "names do not depend on the engine");
    // Held, so that the next socket cannot get the same number.
    let held = lab.host.path("held");
    let _ = std::fs::write(&held, "");
    lab.engine.start_again();
    println!(
        "the socket was inode {inode}, now {}",
        std::fs::metadata(&lab.engine.socket).expect("a socket").ino()
    );
    until_true("the engine is found", PATIENCE, || lab.selvedge.status()["engine"]["up"] == true);
    assert_eq!(docker.address("bad-engine"), address);
    still_serves(&lab, worker);
}

#[test]
fn selvedge_may_start_before_the_engine() {
    let host = Host::new();
    let selvedge = Selvedge::prepare(&host, &host.path("engine.sock"), &[]);
    selvedge.spawn();
    until_true("it listens", PATIENCE, || UnixStream::connect(selvedge.socket()).is_ok());
    let asked = Docker::new(&selvedge.socket()).spawn(&["version", "--format", "{{.Server.APIVersion}}"]);
    let engine = Engine::debian(&host, &[]);
    let answer = asked.wait_with_output().expect("the CLI ends");
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "1.41", "{answer:?}");
    drop((selvedge, engine));
}

#[test]
fn garbage_on_dns_is_borne() {
    let lab = Lab::shared();
    let worker = lab.selvedge.worker();
    lab.selvedge.docker().start(&["--name", "bad-dns", "busybox", "sleep", "1000"]);
    let address = lab.selvedge.docker().address("bad-dns");
    let bash = |script: &str| run(lab.host.command("bash").args(["-c", script]), b"");
    bash("for i in $(seq 300); do head -c $((RANDOM % 700 + 1)) /dev/urandom >/dev/udp/169.254.1.1/53; done")
        .ok();
    // A head that promises sections which are not there, a name that points at itself, one that never ends,
    // an answer, and half a head.
    for packet in [
        r"\x12\x34\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff",
        r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01",
        r"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3faaaa",
        r"\x12\x34\x81\x80\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01",
        r"\x12\x34\x01",
    ] {
        bash(&format!("printf '{packet}' >/dev/udp/169.254.1.1/53")).ok();
        // By TCP two bytes of length stand in front; here they are wrong as well.
        bash(&format!("printf '\\x00\\xff{packet}' >/dev/tcp/169.254.1.1/53"));
    }
    bash("for i in $(seq 30); do head -c 3000 /dev/urandom 2>/dev/null >/dev/tcp/169.254.1.1/53; done; true")
        .ok();
    assert_eq!(lab.host.resolve("bad-dns"), [address.as_str()]);
    let tcp = lab.host.dig("+tcp +short bad-dns.selvedge.internal");
    assert_eq!(tcp.trim(), address);
    lab.selvedge.docker().remove(&["bad-dns"]);
    still_serves(lab, worker);
}

/// Paths that some router might take for a create.
const TRICKS: [&str; 29] = [
    "//containers/create",
    "/containers//create",
    "/./containers/create",
    "/x/../containers/create",
    "/v1.41//containers/create",
    "/v1.41/../v1.41/containers/create",
    "/containers/%63reate",
    "/%63ontainers/create",
    "/containers%2fcreate",
    "/containers/create/",
    "/containers/create%20",
    "/containers/create;x=1",
    "/containers/create%00",
    "/containers/create#x",
    "/Containers/Create",
    "/containers/create/.",
    "/containers/x/../create",
    "/v1.41%2fcontainers/create",
    "/v9999.41/containers/create",
    "/v/containers/create",
    "containers/create",
    "*",
    "http://d/containers/create",
    "http://d//containers/create",
    "HTTP://d:80/v1.41/containers/create",
    "unix:///containers/create",
    "http:///containers/create",
    "/containers/create?",
    "/containers/create??name=y",
];

/// Sends a create to this path; the status, and the id of what was made.
fn try_path(socket: &std::path::Path, path: &str) -> (u16, Option<String>) {
    let body = "{\"Image\":\"busybox\"}";
    let head =
        "HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 19";
    let answer = http::send(socket, format!("POST {path} {head}\r\n\r\n{body}").as_bytes());
    let answer = answer.unwrap_or_else(|error| panic!("{path}: {error}"));
    let json: Value = serde_json::from_str(&answer.text()).unwrap_or_default();
    (answer.status, json["Id"].as_str().map(str::to_owned))
}

#[test]
fn the_rewrite_cannot_be_got_around_by_the_path() {
    let lab = Lab::shared();
    let raw = lab.engine.docker();
    for path in TRICKS {
        let (direct, made) = try_path(&lab.engine.socket, path);
        raw.remove(&made.iter().map(String::as_str).collect::<Vec<_>>());
        let (through, made) = try_path(&lab.socket(), path);
        assert_eq!(direct, through, "{path}");
        if let Some(id) = made {
            let labels = raw.inspect(&id)["Config"]["Labels"].clone();
            assert!(labels.get("selvedge.internal.wire").is_some(), "{path} got around us");
            raw.remove(&[&id]);
        }
    }
}

#[test]
fn silent_clients_do_not_block_others_where_descriptors_are_few() {
    let lab = Lab::new();
    let worker = lab.selvedge.worker();
    // As a worker has it whose keeper may not raise the limit.
    selvedge_tests::shell::sh(&format!("prlimit --pid {worker} --nofile=256:256")).ok();
    let mut silent: Vec<UnixStream> = Vec::new();
    for number in 0..400 {
        let mut stream = connect(&lab.socket()).expect("it listens");
        // Half of them have sent half a head.
        if number % 2 == 0 {
            let _ = stream.write_all(b"GET /_ping HTTP/1.1\r\nHo");
        }
        silent.push(stream);
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(http::get(&lab.socket(), "/_ping").expect("an answer").status, 200);
    }
    lab.selvedge.docker().run(&["run", "--rm", "busybox", "true"]).ok();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // The oldest went first; the youngest are still served.
    assert_eq!(silent[0].read(&mut [0; 16]).unwrap_or(0), 0, "the oldest is let go");
    let last = silent.last_mut().expect("400 of them");
    last.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").expect("it reads");
    assert_eq!(status(&read_head(last).expect("an answer").0), 200);
    assert_eq!(lab.selvedge.worker(), worker, "the worker died");
}
