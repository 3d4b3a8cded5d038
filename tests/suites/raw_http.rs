//! What clients put on the socket byte by byte, beyond what the docker CLI does.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use selvedge_tests::Lab;
use selvedge_tests::http::{self, Answer, connect, get, post, read_head, send, status};
use selvedge_tests::selvedge::descriptors;
use selvedge_tests::wait::{until, until_true};

const LIMIT: Duration = Duration::from_secs(60);

/// The same bytes to the engine and to Selvedge; both answers.
fn both(request: &str) -> (Answer, Answer) {
    let lab = Lab::shared();
    let answer = |socket| send(socket, request.as_bytes()).expect("an answer");
    (answer(&lab.engine.socket), answer(&lab.socket()))
}

/// A head without what differs from run to run, its fields sorted.
fn fields(head: &str) -> Vec<String> {
    let mut lines: Vec<String> = head.lines().map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with("Date:") && !line.is_empty());
    lines.sort();
    lines
}

fn is_ours(name: &str) -> bool {
    let config = &Lab::shared().engine.docker().inspect(name)["Config"];
    config["Labels"].get("selvedge.internal.wire").is_some()
        && config["Entrypoint"][0].as_str().is_some_and(|word| word.contains("selvedge-wait"))
}

fn create_request(name: &str, more: &str) -> String {
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let length = body.len();
    format!(
        "POST /v1.41/containers/create?name={name} HTTP/1.1\r\nHost: d\r\n{more}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Reads one answer of known length or in chunks off a kept connection.
fn one_answer(stream: &mut UnixStream, left: &mut Vec<u8>) -> Answer {
    let mut part = [0; 4096];
    let mut more = |left: &mut Vec<u8>| {
        let read = stream.read(&mut part).expect("more of an answer");
        assert!(read > 0, "closed within an answer: {:?}", String::from_utf8_lossy(left));
        left.extend_from_slice(&part[..read]);
    };
    let end = loop {
        match left.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None => more(left),
        }
    };
    let head = String::from_utf8_lossy(&left[..end]).into_owned();
    left.drain(..end);
    let low = head.to_ascii_lowercase();
    let length = low.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    let length: usize = if low.contains("transfer-encoding: chunked") {
        loop {
            match left.windows(5).position(|window| window == b"0\r\n\r\n") {
                Some(end) => break end + 5,
                None => more(left),
            }
        }
    } else {
        length.unwrap_or(0)
    };
    while left.len() < length {
        more(left);
    }
    let body = left.drain(..length).collect();
    Answer { status: status(&head), head, body }
}

#[test]
fn heads_of_every_age_are_answered_as_the_engine_answers_them() {
    for request in [
        "GET /_ping HTTP/1.0\r\n\r\n",
        "GET /containers/nothing-there/json HTTP/1.0\r\n\r\n",
        "GET /events?since=1&until=2 HTTP/1.0\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
        "HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /events?since=1&until=2 HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /v1.41/_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /v1.24/images/nothing-there/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /v1.99/containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /v1.99/version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /v1.1/containers/nothing-there/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /nothing/at/all HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "BREW /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "PUT /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "OPTIONS /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "POST /containers/nothing-there/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        "POST /v1.41/containers/create HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"Image\":\"tr-none:9\"}",
        "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 21\r\n\r\n{\"Image\":\"tr-none:9\"}",
        "POST /v1.41/containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n",
        "DELETE /containers/nothing-there HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
    ] {
        let (direct, ours) = both(request);
        assert_eq!((direct.status, direct.text()), (ours.status, ours.text()), "{request}");
        // A rewritten answer to HTTP/1.0 is one of HTTP/1.1 (RFC 9110, 6.2, allows it), and one that ended
        // with the connection says its length.
        let mut ours = fields(&ours.head);
        if !direct.head.contains("Content-Length") {
            ours.retain(|line| !line.starts_with("Content-Length"));
        }
        if !(request.contains("/json HTTP/1.0")) {
            assert_eq!(fields(&direct.head), ours, "{request}");
        }
    }
}

#[test]
fn an_attach_without_upgrade_is_a_raw_stream_both_ways() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker
        .run(&[
            "create",
            "-i",
            "--name",
            "raw-att",
            "busybox",
            "sh",
            "-c",
            "read x; echo got $x; sleep 0.3; echo last",
        ])
        .ok();
    let mut stream = connect(&lab.socket()).unwrap();
    stream
        .write_all(b"POST /v1.41/containers/raw-att/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let (head, mut bytes) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 200, "{head}");
    assert!(head.contains("application/vnd.docker.raw-stream"), "{head}");
    docker.run(&["start", "raw-att"]).ok();
    stream.write_all(b"word\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"\x01\0\0\0\0\0\0\x09got word\n\x01\0\0\0\0\0\0\x05last\n");
    docker.remove(&["raw-att"]);
}

#[test]
fn an_attach_with_upgrade_gives_101_and_the_stream_of_its_api_version() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["create", "-i", "--name", "raw-up", "busybox", "cat"]).ok();
    let mut stream = connect(&lab.socket()).unwrap();
    // What comes right behind the head belongs to the stream already.
    stream
        .write_all(b"POST /containers/raw-up/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nearly\n")
        .unwrap();
    let (head, mut bytes) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    assert!(head.contains("Upgrade: tcp") && head.contains("Connection: Upgrade"), "{head}");
    assert!(
        head.contains("vnd.docker.raw-stream") || head.contains("vnd.docker.multiplexed-stream"),
        "{head}"
    );
    docker.run(&["start", "raw-up"]).ok();
    stream.write_all(b"late\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut bytes).unwrap();
    let text: Vec<u8> = payload(&bytes);
    assert_eq!(text, b"early\nlate\n");
    docker.remove(&["raw-up"]);
}

/// The payload of frames with Docker's header of eight bytes.
fn payload(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [_, _, _, _, a, b, c, d, rest @ ..] = bytes {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        out.extend_from_slice(&rest[..len]);
        bytes = &rest[len..];
    }
    out
}

#[test]
fn an_attach_by_websocket_carries_frames_both_ways() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&["-i", "--name", "raw-ws", "busybox", "cat"]);
    let mut stream = connect(&lab.socket()).unwrap();
    stream
        .write_all(b"GET /containers/raw-ws/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nOrigin: http://d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .unwrap();
    let (head, mut bytes) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    // RFC 6455, 1.3: the answer to the sample nonce.
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // A masked text frame: "hi\n" with a mask of zeros.
    stream.write_all(b"\x81\x83\0\0\0\0hi\n").unwrap();
    let mut part = [0; 64];
    while bytes.len() < 5 {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "closed after {bytes:?}");
        bytes.extend_from_slice(&part[..read]);
    }
    assert!(bytes.ends_with(b"hi\n") && matches!(bytes[0], 0x81 | 0x82), "{bytes:?}");
    drop(stream);
    docker.remove(&["raw-ws"]);
}

#[test]
fn session_and_grpc_are_upgraded_to_h2c_and_pumped_blind() {
    let lab = Lab::shared();
    let mut grpc = connect(&lab.socket()).unwrap();
    let upgrade = "HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n";
    grpc.write_all(format!("POST /grpc {upgrade}\r\n").as_bytes()).unwrap();
    let (head, mut bytes) = read_head(&mut grpc).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    // RFC 9113, 3.4: the client's preface and an empty SETTINGS; the server's SETTINGS (type 4) comes, too.
    grpc.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    at_least(&mut grpc, &mut bytes, 9);
    assert_eq!(bytes[3], 4, "{bytes:?}");
    let mut session = connect(&lab.socket()).unwrap();
    let ours = "X-Docker-Expose-Session-Uuid: raw-session\r\nX-Docker-Expose-Session-Name: n\r\nX-Docker-Expose-Session-Sharedkey: k\r\nX-Docker-Expose-Session-Grpc-Method: /a/b\r\nX-Docker-Expose-Session-Grpc-Method: /c/d\r\n";
    session.write_all(format!("POST /session {upgrade}{ours}\r\n").as_bytes()).unwrap();
    let (head, mut bytes) = read_head(&mut session).unwrap();
    assert_eq!(status(&head), 101, "{head}");
    // Here the engine is the HTTP/2 client.
    at_least(&mut session, &mut bytes, 24);
    assert!(bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "{bytes:?}");
}

fn at_least(stream: &mut UnixStream, bytes: &mut Vec<u8>, len: usize) {
    let mut part = [0; 4096];
    while bytes.len() < len {
        let read = stream.read(&mut part).expect("more bytes");
        assert!(read > 0, "closed after {bytes:?}");
        bytes.extend_from_slice(&part[..read]);
    }
}

#[test]
fn an_answer_that_begins_before_the_upload_ends_arrives() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["create", "--name", "raw-put", "busybox", "true"]).ok();
    let mut stream = connect(&lab.socket()).unwrap();
    stream
        .write_all(b"PUT /v1.41/containers/raw-put/archive?path=/no/such/dir HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    // The upload goes on until the engine has had enough of it; its answer must not be lost over that.
    let mut upload = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let chunk = [b"10000\r\n".to_vec(), vec![0; 0x10000], b"\r\n".to_vec()].concat();
        for _ in 0..1024 {
            if upload.write_all(&chunk).is_err() {
                return;
            }
        }
        let _ = upload.write_all(b"0\r\n\r\n");
    });
    let (head, mut body) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 404, "{head}");
    let _ = stream.read_to_end(&mut body);
    let text = Answer { status: 404, head, body }.text();
    assert!(text.contains("Could not find the file /no/such/dir in container raw-put"), "{text}");
    drop(stream);
    sender.join().unwrap();
    docker.remove(&["raw-put"]);
}

#[test]
fn the_head_of_a_wait_comes_at_once_and_its_body_at_the_end() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["create", "--name", "raw-wait", "busybox", "sh", "-c", "sleep 1; exit 3"]).ok();
    let mut stream = connect(&lab.socket()).unwrap();
    let asked = Instant::now();
    stream
        .write_all(b"POST /v1.41/containers/raw-wait/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let (head, mut body) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 200, "{head}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    docker.run(&["start", "raw-wait"]).ok();
    stream.read_to_end(&mut body).unwrap();
    let text = Answer { status: 200, head, body }.text();
    assert!(text.contains("\"StatusCode\":3"), "{text}");
    docker.remove(&["raw-wait"]);
}

#[test]
fn pipelined_requests_are_answered_in_turn() {
    let lab = Lab::shared();
    let mut stream = connect(&lab.socket()).unwrap();
    let short = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let list = "GET /containers/json?limit=1 HTTP/1.1\r\nHost: d\r\n\r\n";
    let all =
        [short, &create_request("raw-pipe-1", ""), short, list, &create_request("raw-pipe-2", ""), short]
            .concat();
    stream.write_all(all.as_bytes()).unwrap();
    let mut left = Vec::new();
    let statuses: Vec<u16> = (0..6).map(|_| one_answer(&mut stream, &mut left).status).collect();
    assert_eq!(statuses, [200, 201, 200, 200, 201, 200]);
    for name in ["raw-pipe-1", "raw-pipe-2"] {
        assert!(is_ours(name), "{name}");
    }
    lab.selvedge.docker().remove(&["raw-pipe-1", "raw-pipe-2"]);
}

#[test]
fn what_is_pipelined_behind_a_stream_is_never_served_unrewritten() {
    let lab = Lab::shared();
    let smuggled = create_request("raw-smuggled", "");
    for first in [
        "GET /events?since=1&until=2 HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /containers/nothing-there/attach?stream=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/nothing-there/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
        "POST /nothing/at/all HTTP/1.1\r\nHost: d\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/nothing-there/wait HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /nothing/at/all HTTP/1.1\r\nHost: d\r\nConnection: upgrade, keep-alive\r\nUpgrade: h2c\r\n\r\n",
        "POST /images/nothing-there/push HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /images/nothing-there/get HTTP/1.1\r\nHost: d\r\nConnection: x\r\nConnection: keep-alive\r\n\r\n",
    ] {
        let mut stream = connect(&lab.socket()).unwrap();
        stream.write_all(format!("{first}{smuggled}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let exists = get(&lab.engine.socket, "/containers/raw-smuggled/json").unwrap().status == 200;
        assert!(!exists || is_ours("raw-smuggled"), "{first}: {}", String::from_utf8_lossy(&all));
        lab.selvedge.docker().remove(&["raw-smuggled"]);
    }
}

#[test]
fn one_connection_serves_many_requests_with_rewritten_ones_among_them() {
    let lab = Lab::shared();
    let mut stream = connect(&lab.socket()).unwrap();
    let mut left = Vec::new();
    let mut ask = |request: &str| {
        stream.write_all(request.as_bytes()).unwrap();
        one_answer(&mut stream, &mut left)
    };
    for round in 0..100 {
        assert_eq!(ask("GET /v1.41/version HTTP/1.1\r\nHost: d\r\n\r\n").status, 200, "{round}");
        assert_eq!(ask("HEAD /_ping HTTP/1.1\r\nHost: d\r\n\r\n").status, 200, "{round}");
        assert_eq!(ask("GET /containers/raw-none/json HTTP/1.1\r\nHost: d\r\n\r\n").status, 404, "{round}");
        if round % 20 == 0 {
            let name = format!("raw-keep-{round}");
            assert_eq!(ask(&create_request(&name, "")).status, 201);
            assert!(is_ours(&name));
            let start =
                format!("POST /containers/{name}/start HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(ask(&start).status, 204);
            let inspect = format!("GET /containers/{name}/json HTTP/1.1\r\nHost: d\r\n\r\n");
            assert!(ask(&inspect).text().contains("\"Path\":\"true\""));
            lab.selvedge.docker().remove(&[&name]);
        }
    }
}

#[test]
fn a_create_may_come_in_chunks_or_in_pieces_or_wait_for_100_continue() {
    let lab = Lab::shared();
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let head = |name: &str, more: &str| {
        format!(
            "POST /containers/create?name={name} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{more}\r\n"
        )
    };
    let mut left = Vec::new();
    let mut stream = connect(&lab.socket()).unwrap();
    stream.write_all(head("raw-chunk", "Transfer-Encoding: chunked\r\n").as_bytes()).unwrap();
    for part in body.as_bytes().chunks(7) {
        stream.write_all(format!("{:x};ext=1\r\n", part.len()).as_bytes()).unwrap();
        stream.write_all(&[part, b"\r\n"].concat()).unwrap();
    }
    stream.write_all(b"0\r\nTrailer: x\r\n\r\n").unwrap();
    assert_eq!(one_answer(&mut stream, &mut left).status, 201);
    for byte in create_request("raw-pieces", "").bytes() {
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(one_answer(&mut stream, &mut left).status, 201);
    let expect = format!("Expect: 100-continue\r\nContent-Length: {}\r\n", body.len());
    stream.write_all(head("raw-expect", &expect).as_bytes()).unwrap();
    assert_eq!(one_answer(&mut stream, &mut left).status, 100);
    stream.write_all(body.as_bytes()).unwrap();
    assert_eq!(one_answer(&mut stream, &mut left).status, 201);
    for name in ["raw-chunk", "raw-pieces", "raw-expect"] {
        assert!(is_ours(name), "{name}");
        lab.selvedge.docker().remove(&[name]);
    }
}

#[test]
fn an_upload_may_wait_for_100_continue() {
    let lab = Lab::shared();
    let mut stream = connect(&lab.socket()).unwrap();
    stream
        .write_all(
            b"POST /images/load HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n",
        )
        .unwrap();
    let (head, _) = read_head(&mut stream).unwrap();
    assert_eq!(status(&head), 100, "{head}");
    stream.write_all(b"rubbish\n").unwrap();
    let (head, _) = read_head(&mut stream).unwrap();
    assert!(status(&head) == 200 || status(&head) == 500, "{head}");
}

#[test]
fn an_upgrade_that_is_refused_leaves_a_connection_on_which_the_next_create_is_rewritten() {
    let lab = Lab::shared();
    let mut stream = connect(&lab.socket()).unwrap();
    let mut left = Vec::new();
    let body = r#"{"Detach":false,"Tty":false}"#;
    let upgrade = format!(
        "POST /exec/{}/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        "0".repeat(64),
        body.len()
    );
    for name in ["raw-refused-1", "raw-refused-2"] {
        stream.write_all(upgrade.as_bytes()).unwrap();
        let answer = one_answer(&mut stream, &mut left);
        assert_eq!(answer.status, 404, "{}", answer.head);
        stream.write_all(create_request(name, "").as_bytes()).unwrap();
        assert_eq!(one_answer(&mut stream, &mut left).status, 201);
        assert!(is_ours(name));
        lab.selvedge.docker().remove(&[name]);
    }
}

#[test]
fn after_a_thousand_clients_that_go_away_in_mid_stream_nothing_is_left_open() {
    let lab = Lab::new();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "gone", "busybox", "sh", "-c", "echo line; exec sleep 600"]);
    docker.start(&["--name", "talks", "busybox", "sh", "-c", "while :; do echo line; sleep 0.5; done"]);
    let open = || {
        let count = |pid| descriptors(pid);
        (count(lab.selvedge.keeper()), count(lab.selvedge.worker()), count(lab.engine.pid()))
    };
    go_away(&lab, 8);
    let before = settled(&open);
    go_away(&lab, 1000);
    // The engine itself keeps a descriptor for every attach that was given up, until the container ends, with
    // us or without (seen with 20.10).
    docker.remove(&["gone", "talks"]);
    // Engine connections that the worker keeps for short requests, and the like, may be a few more or less.
    let near = |now: usize, then: usize| now <= then + 8;
    let end = Instant::now() + LIMIT;
    loop {
        let now = open();
        if near(now.0, before.0) && near(now.1, before.1) && near(now.2, before.2) {
            break;
        }
        assert!(
            Instant::now() < end,
            "descriptors of keeper, worker, engine: {before:?}, and after 1,000 clients {now:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(get(&lab.socket(), "/_ping").unwrap().status, 200);
}

fn settled(open: &dyn Fn() -> (usize, usize, usize)) -> (usize, usize, usize) {
    let mut last = open();
    let end = Instant::now() + LIMIT;
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = open();
        if now == last || Instant::now() > end {
            return now;
        }
        last = now;
    }
}

fn go_away(lab: &Lab, clients: usize) {
    let requests = [
        "GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
        "GET /containers/gone/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /containers/talks/attach?stream=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
        "POST /v1.41/containers/gone/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
        // An upgrade to which the engine answers with a stream of the ordinary kind.
        "GET /events?filters=%7B%22container%22%3A%5B%22none%22%5D%7D HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    ];
    let mut open = Vec::new();
    for (request, _) in requests.iter().cycle().zip(0..clients) {
        let mut stream = until("a connection", LIMIT, || connect(&lab.socket()).ok());
        stream.write_all(request.as_bytes()).unwrap();
        let (head, _) = read_head(&mut stream).unwrap_or_else(|error| panic!("{request}: {error}"));
        assert!(matches!(status(&head), 101 | 200), "{head}");
        open.push(stream);
        // Fifty at a time, so that they are there together.
        if open.len() == 50 {
            open.clear();
        }
    }
}

#[test]
fn ten_thousand_idle_connections_do_not_stop_the_service() {
    const CLIENTS: usize = 10_000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard >= 12_000, "the hard limit of descriptors is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard).unwrap();
    let lab = Lab::new();
    let connected = |_| until("a connection", LIMIT, || connect(&lab.socket()).ok());
    let mut idle: Vec<UnixStream> = (0..CLIENTS).map(connected).collect();
    let docker = lab.selvedge.docker();
    assert_eq!(docker.run(&["run", "--rm", "busybox", "echo", "served"]).ok(), "served");
    let (answer, took) = selvedge_tests::shell::timed(|| get(&lab.socket(), "/_ping").unwrap());
    assert_eq!(answer.status, 200);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Each of them can still be used.
    for stream in idle.iter_mut().step_by(1000) {
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").unwrap();
        assert_eq!(one_answer(stream, &mut Vec::new()).status, 200);
    }
    let worker = lab.selvedge.worker();
    drop(idle);
    until_true("the idle connections are closed", LIMIT, || descriptors(worker) < 500);
    assert_eq!(post(&lab.socket(), "/containers/none/start", "").unwrap().status, 404);
    assert!(http::get(&lab.socket(), "/_ping").is_ok());
}
