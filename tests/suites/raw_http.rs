//! HTTP as no CLI of today speaks it, and as every one of them relies on: byte by byte, directly and through
//! Selvedge.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::compare::normalised;
use selvedge_tests::http::{self, Answer, connect, read_head, status};
use selvedge_tests::selvedge::descriptors;
use selvedge_tests::wait::until_true;

const PATIENCE: Duration = Duration::from_secs(20);

/// A head without what differs from moment to moment, in the order it came.
fn head_of(answer: &str) -> String {
    answer.lines().filter(|line| !line.starts_with("Date: ")).map(|line| format!("{line}\n")).collect()
}

fn shown(answer: &Answer) -> String {
    format!("{}{}", head_of(&answer.head), normalised(&String::from_utf8_lossy(&answer.body)))
}

fn sides(lab: &Lab) -> [PathBuf; 2] {
    [lab.engine.socket.clone(), lab.socket()]
}

/// The same bytes to both; the same answer to the end of the connection.
fn same(lab: &Lab, request: &str) {
    let [direct, through] =
        sides(lab).map(|socket| http::send(&socket, request.as_bytes()).map(|a| shown(&a)));
    let direct = direct.unwrap_or_else(|error| panic!("{request:?} directly: {error}"));
    let through = through.unwrap_or_else(|error| panic!("{request:?} through Selvedge: {error}"));
    assert_eq!(direct, through, "{request:?}");
}

/// A container that runs until it is removed.
fn sleeper(lab: &Lab, name: &str) {
    lab.selvedge.docker().start(&["--name", name, "busybox", "sleep", "1000"]);
}

#[test]
fn old_and_odd_heads_are_answered_as_by_the_engine() {
    let lab = Lab::shared();
    for request in [
        "GET /_ping HTTP/1.0\r\n\r\n",
        "HEAD /_ping HTTP/1.0\r\n\r\n",
        "GET /volumes HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: \r\nconnection: CLOSE\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: /var/run/docker.sock\r\nConnection: close\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nConnection: close\r\n\r\n",
        "HEAD /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET /nosuch HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "PATCH /containers/json HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "get /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "OPTIONS /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
        "GET http://d/v1.41/_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n",
    ] {
        same(lab, request);
    }
}

#[test]
fn any_version_in_the_path_is_as_good_as_with_the_engine() {
    let lab = Lab::shared();
    for path in [
        "/containers/nosuch/json",
        "/v1.41/containers/nosuch/json",
        "/v1.24/containers/nosuch/json",
        "/v1.12/containers/nosuch/json",
        "/v1.99/containers/nosuch/json",
        "/v1.99/containers/json",
        "/v1/containers/json?filters=%7B%22name%22%3A%5B%22nosuch%22%5D%7D",
        "/v1.41.0/_ping",
        "/vx/_ping",
        "/v1.41/images/nosuch/json",
        "/v1.41/exec/nosuch/json",
        "/v1.41/networks/nosuch",
        "/v1.41/volumes/nosuch",
        "/v1.41/containers/nosuch/logs?stdout=1",
        "/v1.41/containers/nosuch/top",
    ] {
        same(lab, &format!("GET {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"));
    }
    for path in
        ["/containers/nosuch/start", "/v1.41/containers/nosuch/restart?t=1", "/v1.99/containers/create"]
    {
        same(
            lab,
            &format!(
                "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
            ),
        );
    }
}

#[test]
fn one_connection_carries_many_requests_of_every_kind() {
    let lab = Lab::shared();
    sleeper(lab, "raw-keep");
    let mut stream = connect(&lab.socket()).expect("it listens");
    for round in 0..200 {
        let path = ["/_ping", "/v1.41/containers/raw-keep/json", "/containers/json", "/nosuch-is-a-stream"]
            [round % 4];
        // The last is unknown, so it may be long-lived: its connection ends with its answer.
        let last = round % 4 == 3;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: d\r\n\r\n").expect("it reads");
        let (head, mut body) = read_head(&mut stream).expect("an answer");
        if last {
            assert_eq!(status(&head), 404, "{head}");
            stream = connect(&lab.socket()).expect("it listens");
            continue;
        }
        assert_eq!(status(&head), 200, "{head}");
        read_body(&mut stream, &head, &mut body);
    }
    lab.selvedge.docker().remove(&["raw-keep"]);
}

/// Reads the rest of a body with a length, in chunks, or up to the end of the connection.
fn read_body(stream: &mut UnixStream, head: &str, body: &mut Vec<u8>) {
    let lower = head.to_ascii_lowercase();
    let length =
        lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    let complete =
        |body: &[u8]| length.map_or_else(|| body.ends_with(b"0\r\n\r\n"), |length| body.len() >= length);
    let until_close = length.is_none() && !lower.contains("transfer-encoding: chunked");
    let mut part = [0; 65536];
    while until_close || !complete(body) {
        let read = stream.read(&mut part).expect("the rest of the body");
        if until_close && read == 0 {
            return;
        }
        assert!(read > 0, "cut short: {head}");
        body.extend_from_slice(&part[..read]);
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let lab = Lab::shared();
    let ping = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    let missing = "GET /containers/nosuch/json HTTP/1.1\r\nHost: d\r\n\r\n";
    let create = "POST /containers/create?name=raw-piped HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"Image\":\"busybox\"}";
    let last = "DELETE /containers/raw-piped HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
    let all = [ping, missing, ping, create, ping, last].concat();
    let mut seen = Vec::new();
    for socket in sides(lab) {
        let answer = http::send(&socket, all.as_bytes()).expect("answers");
        let text = answer.head.clone() + &String::from_utf8_lossy(&answer.body);
        // A body may end without a line end, and the next head follows at once.
        let codes = text.split("HTTP/1.1 ").skip(1).map(|part| part.chars().take(3).collect::<String>());
        seen.push(codes.collect::<Vec<_>>());
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0].len(), 6, "{:?}", seen[0]);
    // Behind a stream the engine takes no further request, and we must not let one through unread.
    let hidden = "GET /events?until=1 HTTP/1.1\r\nHost: d\r\n\r\nPOST /containers/create?name=raw-hidden HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"Image\":\"busybox\"}";
    let answer = http::send(&lab.socket(), hidden.as_bytes()).expect("the stream is answered");
    assert_eq!(answer.status, 200, "{}", answer.head);
    let found = lab.engine.docker().run(&["inspect", "--format", "{{.Config.Labels}}", "raw-hidden"]);
    assert!(found.code != 0 || found.stdout.contains("selvedge.internal.wire"), "{}", found.stdout);
    lab.selvedge.docker().remove(&["raw-hidden"]);
}

fn attach(socket: &Path, name: &str, upgrade: &str) -> (UnixStream, String, Vec<u8>) {
    let mut stream = connect(socket).expect("it listens");
    write!(
        stream,
        "POST /v1.41/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: d\r\n{upgrade}Content-Length: 0\r\n\r\n"
    )
    .expect("it reads");
    let (head, rest) = read_head(&mut stream).expect("an answer");
    (stream, head, rest)
}

#[test]
fn attach_is_hijacked_with_and_without_an_upgrade_and_half_closes() {
    let lab = Lab::shared();
    for (upgrade, expected) in [("Connection: Upgrade\r\nUpgrade: tcp\r\n", 101), ("", 200)] {
        let mut seen = Vec::new();
        for socket in sides(lab) {
            let docker = lab.selvedge.docker();
            let script = "head -n 1; echo between; cat; echo after; exit 3";
            docker.run(&["create", "-i", "--name", "raw-attach", "busybox", "sh", "-c", script]).ok();
            let (mut stream, head, mut out) = attach(&socket, "raw-attach", upgrade);
            assert_eq!(status(&head), expected, "{head}");
            docker.run(&["start", "raw-attach"]).ok();
            stream.write_all(b"first\nsecond\n").expect("stdin");
            stream.shutdown(Shutdown::Write).expect("half a close");
            stream.read_to_end(&mut out).expect("the output");
            assert_eq!(docker.run(&["wait", "raw-attach"]).ok(), "3");
            docker.remove(&["raw-attach"]);
            // Frames may be cut anywhere: only the payload is the same.
            seen.push((head_of(&head), payload(&out)));
        }
        assert_eq!(seen[0], seen[1]);
        assert!(seen[0].1.ends_with("after\n") && seen[0].1.starts_with("first\n"), "{}", seen[0].1);
    }
}

/// What stands in the frames of a stream: eight bytes of head, the last four the length.
fn payload(mut frames: &[u8]) -> String {
    let mut out = Vec::new();
    while let Some((head, rest)) = frames.split_at_checked(8) {
        let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let length = length.min(rest.len());
        out.extend_from_slice(&rest[..length]);
        frames = &rest[length..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn attach_by_websocket_works() {
    let lab = Lab::shared();
    let mut seen = Vec::new();
    for socket in sides(lab) {
        let docker = lab.selvedge.docker();
        docker.start(&["-i", "--name", "raw-ws", "busybox", "sh", "-c", "head -n 1; sleep 1; echo bye"]);
        let mut stream = connect(&socket).expect("it listens");
        stream
            .write_all(b"GET /containers/raw-ws/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\nOrigin: http://d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
            .expect("it reads");
        let (head, mut out) = read_head(&mut stream).expect("an answer");
        assert_eq!(status(&head), 101, "{head}");
        // A text frame of three bytes, masked with zeros (RFC 6455, 5.2).
        stream.write_all(b"\x81\x83\0\0\0\0hi\n").expect("a frame");
        let _ = stream.read_to_end(&mut out);
        docker.remove(&["raw-ws"]);
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(text.contains("hi\n") && text.contains("bye\n"), "{text:?}");
        seen.push(head_of(&head));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn sessions_and_grpc_are_upgraded_to_http2_and_pumped_blindly() {
    let lab = Lab::shared();
    for (path, sent, expected) in [
        // On a session the engine is the client: it speaks first (RFC 9113, 3.4).
        ("/session", &b""[..], &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
        // The other way round: our preface and empty SETTINGS, its SETTINGS (type 4).
        ("/grpc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\x04"),
    ] {
        let mut seen = Vec::new();
        for socket in sides(lab) {
            let mut stream = connect(&socket).expect("it listens");
            write!(
                stream,
                "POST {path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: raw{}\r\nX-Docker-Expose-Session-Name: x\r\nX-Docker-Expose-Session-Grpc-Method: /a.B/C\r\nX-Docker-Expose-Session-Grpc-Method: /a.B/D\r\n\r\n",
                seen.len()
            )
            .expect("it reads");
            let (head, mut out) = read_head(&mut stream).expect("an answer");
            assert_eq!(status(&head), 101, "{path}: {head}");
            stream.write_all(sent).expect("it reads on");
            let mut part = [0; 256];
            while out.len() < expected.len().max(9) {
                let read = stream.read(&mut part).expect("HTTP/2");
                assert!(read > 0, "{path}: it closed after {out:?}");
                out.extend_from_slice(&part[..read]);
            }
            let found = if expected.len() == 1 { out[3..4].to_vec() } else { out[..expected.len()].to_vec() };
            assert_eq!(found, expected, "{path}");
            seen.push(head_of(&head));
        }
        assert_eq!(seen[0], seen[1], "{path}");
    }
}

#[test]
fn a_refused_upgrade_leaves_an_ordinary_connection_that_is_still_rewritten() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.run(&["create", "--name", "raw-refused", "busybox", "true"]).ok();
    let mut stream = connect(&lab.socket()).expect("it listens");
    stream
        .write_all(b"POST /exec/nosuch/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
        .expect("it reads");
    let (head, mut body) = read_head(&mut stream).expect("an answer");
    assert_eq!(status(&head), 404, "{head}");
    if !head.to_ascii_lowercase().contains("connection: close") {
        read_body(&mut stream, &head, &mut body);
        stream
            .write_all(b"POST /containers/create?name=raw-after HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 19\r\n\r\n{\"Image\":\"busybox\"}")
            .expect("it reads");
        if let Ok((head, _)) = read_head(&mut stream) {
            assert_eq!(status(&head), 201, "{head}");
            let labels = lab.engine.docker().run(&["inspect", "--format", "{{.Config.Labels}}", "raw-after"]);
            assert!(labels.ok().contains("selvedge.internal.wire"), "{}", labels.stdout);
        }
    }
    docker.remove(&["raw-refused", "raw-after"]);
}

#[test]
fn heads_of_wait_come_long_before_its_body() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    let mut seen = Vec::new();
    for (socket, keep) in sides(lab).into_iter().flat_map(|socket| [(socket.clone(), false), (socket, true)])
    {
        docker.run(&["create", "--name", "raw-wait", "busybox", "sh", "-c", "exit 5"]).ok();
        let mut stream = connect(&socket).expect("it listens");
        if keep {
            // As the CLI does: the third request of its connection.
            stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n").expect("it reads");
            let (head, mut body) = read_head(&mut stream).expect("an answer");
            read_body(&mut stream, &head, &mut body);
        }
        stream
            .write_all(b"POST /v1.41/containers/raw-wait/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
            .expect("it reads");
        let (head, mut body) = read_head(&mut stream).expect("the head, before the container has started");
        docker.run(&["start", "raw-wait"]).ok();
        read_body(&mut stream, &head, &mut body);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains("\"StatusCode\":5"), "{text}");
        // Through us the body ends with the connection rather than with a last chunk.
        let framing = ["Connection: close", "Transfer-Encoding: chunked"];
        let head = head_of(&head);
        let fields: Vec<String> =
            head.lines().filter(|line| !framing.contains(line)).map(str::to_owned).collect();
        let told: Vec<String> =
            text.lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
        seen.push((fields, told));
        docker.remove(&["raw-wait"]);
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:#?}");
}

#[test]
fn an_answer_may_begin_before_the_upload_ends() {
    let lab = Lab::shared();
    for request in [
        "PUT /containers/nosuch/archive?path=/ HTTP/1.1",
        "POST /build?remote=nosuch:// HTTP/1.1",
        "POST /containers/nosuch/attach?stream=1 HTTP/1.1",
    ] {
        let mut seen = Vec::new();
        for socket in sides(lab) {
            let mut stream = connect(&socket).expect("it listens");
            write!(stream, "{request}\r\nHost: d\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n1000000\r\n")
                .expect("it reads");
            let mut upload = stream.try_clone().expect("a descriptor");
            // Go's server reads up to 256 KiB on before it answers; what is more it leaves unread, and closes.
            std::thread::spawn(move || upload.write_all(&[0; 0x100_000]));
            let (head, _) = read_head(&mut stream).expect("an answer before the upload's end");
            seen.push(status(&head));
        }
        assert_eq!(seen[0], seen[1], "{request}");
        assert!(seen[0] >= 400, "{request}: {seen:?}");
    }
}

#[test]
fn a_body_in_chunks_and_one_that_is_asked_for_first_are_taken() {
    let lab = Lab::shared();
    let chunks = "a\r\n{\"Image\":\"\r\n9\r\nbusybox\"}\r\n0\r\n\r\n";
    for (fields, body) in [
        ("Transfer-Encoding: chunked\r\n", chunks),
        ("Expect: 100-continue\r\nContent-Length: 19\r\n", "{\"Image\":\"busybox\"}"),
        ("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", chunks),
    ] {
        let mut seen = Vec::new();
        for socket in sides(lab) {
            let mut stream = connect(&socket).expect("it listens");
            write!(stream, "POST /containers/create?name=raw-chunks HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{fields}\r\n")
                .expect("it reads");
            if fields.contains("100-continue") {
                let (head, _) = read_head(&mut stream).expect("go on");
                assert_eq!(status(&head), 100, "{head}");
            }
            stream.write_all(body.as_bytes()).expect("it reads");
            let (head, _) = read_head(&mut stream).expect("an answer");
            seen.push(status(&head));
            lab.selvedge.docker().remove(&["raw-chunks"]);
        }
        assert_eq!(seen, [201, 201], "{fields:?}");
    }
}

#[test]
fn much_output_to_a_slow_reader_arrives_whole() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker
        .run(&[
            "create",
            "-t",
            "--name",
            "raw-much",
            "busybox",
            "sh",
            "-c",
            "yes 0123456789 | head -n 800000",
        ])
        .ok();
    let (mut stream, head, out) =
        attach(&lab.socket(), "raw-much", "Connection: Upgrade\r\nUpgrade: tcp\r\n");
    assert_eq!(status(&head), 101);
    docker.run(&["start", "raw-much"]).ok();
    let mut total = out.len();
    let mut part = vec![0; 1 << 20];
    for turn in 0_u64.. {
        if turn % 64 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        match stream.read(&mut part).expect("output") {
            0 => break,
            read => total += read,
        }
    }
    // A terminal ends lines with CR LF.
    assert_eq!(total, 800_000 * 12);
    docker.remove(&["raw-much"]);
}

#[test]
fn a_thousand_clients_gone_in_mid_stream_leave_no_descriptor() {
    let lab = Lab::new();
    sleeper(&lab, "raw-gone");
    let processes = || [lab.selvedge.keeper(), lab.selvedge.worker(), lab.engine.pid()].map(descriptors);
    let requests = [
        "GET /events HTTP/1.1\r\nHost: d\r\n\r\n",
        "GET /containers/raw-gone/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n",
        // An upgrade to which the engine answers with a stream of the ordinary kind.
        "GET /events?filters=%7B%22container%22%3A%5B%22none%22%5D%7D HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        "GET /containers/raw-gone/stats HTTP/1.1\r\nHost: d\r\n\r\n",
        "POST /containers/raw-gone/wait HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/raw-gone/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/raw-gone/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n",
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
        "POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n1234",
        "GET /containers/json HTTP/1.1\r\nHo",
        "POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: gone\r\n\r\n",
    ];
    let leave = |socket: &Path, count: usize| {
        for number in 0..count {
            let mut stream = connect(socket).expect("it listens");
            let _ = stream.write_all(requests[number % requests.len()].as_bytes());
            // Half of them once the answer has begun, half of them before.
            if number % 20 < 10 {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
                let _ = stream.read(&mut [0; 64]);
            }
        }
    };
    // What is opened once and kept (idle connections to the engine) is no leak.
    leave(&lab.socket(), 40);
    http::get(&lab.socket(), "/_ping").expect("an answer");
    lab.selvedge.docker().run(&["restart", "-t", "0", "raw-gone"]).ok();
    let mut before = processes();
    until_true("the first ones are gone", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(300));
        let now = processes();
        std::mem::replace(&mut before, now) == now
    });
    leave(&lab.socket(), 1000);
    // The engine does not see that an attached client is gone before the container speaks or ends (the same
    // without us); it must then let go of us, and we of it.
    lab.selvedge.docker().remove(&["raw-gone"]);
    let back = || processes().iter().zip(&before).all(|(now, then)| *now <= then + 3);
    // Connections that our own questions to the engine have used stay open for 20 s; the engine itself may take 40 s to find
    // that a session or a build has lost its client. A leak stays for ever.
    let end = std::time::Instant::now() + 6 * PATIENCE;
    while !back() {
        assert!(std::time::Instant::now() < end, "descriptors: {before:?} before, {:?} after", processes());
        std::thread::sleep(Duration::from_millis(100));
    }
    lab.selvedge.docker().run(&["run", "--rm", "busybox", "true"]).ok();
}
