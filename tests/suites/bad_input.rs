//! Whatever arrives, the answer is clear, nothing crashes, nothing leaks, and no container goes without its
//! wire.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_tests::Lab;
use selvedge_tests::host::Host;
use selvedge_tests::http::{Answer, connect, get, post, send};
use selvedge_tests::selvedge::{Selvedge, descriptors};
use selvedge_tests::shell::timed;
use selvedge_tests::wait::until_true;

const LIMIT: Duration = Duration::from_secs(60);

/// The message of an error in Docker's form.
fn message(answer: &Answer) -> String {
    let value: serde_json::Value = serde_json::from_str(&answer.text())
        .unwrap_or_else(|error| panic!("{error}: {}{}", answer.head, answer.text()));
    value["message"].as_str().unwrap_or_else(|| panic!("no message: {value}")).to_owned()
}

fn create(name: &str, body: &str) -> Answer {
    post(&Lab::shared().socket(), &format!("/v1.41/containers/create?name={name}"), body).expect("an answer")
}

/// A container that the engine has must have a wire, whatever way it came by.
fn ours_or_absent(lab: &Lab, name: &str, how: &str) {
    let seen = get(&lab.engine.socket, &format!("/containers/{name}/json")).expect("an answer");
    if seen.status == 200 {
        assert!(seen.text().contains("selvedge.internal.wire"), "{how}: a container without a wire");
    }
    lab.engine.docker().remove(&[name]);
}

/// Service goes on, in the same worker, with no more descriptors than before.
fn unharmed(lab: &Lab, work: impl FnOnce()) {
    let settled = |most: usize| {
        until_true("descriptors are closed again", LIMIT, || {
            descriptors(lab.selvedge.worker()) + descriptors(lab.selvedge.keeper()) <= most
        });
    };
    let worker = lab.selvedge.worker();
    let before = descriptors(worker) + descriptors(lab.selvedge.keeper());
    work();
    assert_eq!(lab.selvedge.worker(), worker, "the worker has been replaced");
    assert_eq!(get(&lab.socket(), "/_ping").unwrap().status, 200);
    // Some connections to the engine are kept for the next short request; other tests run at this time, too.
    settled(before + 40);
}

#[test]
fn bodies_that_are_no_json_are_refused_as_the_engine_would() {
    let lab = Lab::shared();
    unharmed(lab, || {
        for (index, body) in [
            "{",
            "}",
            "[]",
            "\"x\"",
            "1",
            "{\"Image\":}",
            "{\"Image\":\"busybox\"",
            "\u{0}",
            "{\"Image\":\"busybox\",}",
            "nonsense",
            "{\"Image\":1}",
            "{\"Image\":\"busybox\",\"Labels\":[]}",
            "{\"Image\":\"busybox\",\"HostConfig\":7}",
            "{\"Image\":\"busybox\",\"Env\":{}}",
            "{\"Image\":\"busybox\",\"Cmd\":{\"a\":1}}",
            "{\"Image\":\"busybox\",\"Labels\":{\"a\":1}}",
            "{\"Image\":\"busybox\",\"Cmd\":[1]}",
        ]
        .iter()
        .enumerate()
        {
            let name = format!("bad-json-{index}");
            let answer = create(&name, body);
            assert!((400..=500).contains(&answer.status), "{body}: {}{}", answer.head, answer.text());
            assert!(!message(&answer).is_empty());
            ours_or_absent(lab, &name, body);
        }
        let deep = format!("{{\"Image\":\"busybox\",\"X\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
        let answer = create("bad-deep", &deep);
        assert!(answer.status >= 400, "{}", answer.head);
        ours_or_absent(lab, "bad-deep", "nested deeply");
        for bytes in [
            &b"{\"Image\":\"\xff\xfe\"}"[..],
            b"\xef\xbb\xbf{\"Image\":\"busybox\"}",
            b"{\"Image\":\"busybox\"}{\"Image\":\"busybox\"}",
        ] {
            let head = format!(
                "POST /containers/create?name=bad-bytes HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            );
            let answer = send(&lab.socket(), &[head.as_bytes(), bytes].concat()).unwrap();
            ours_or_absent(lab, "bad-bytes", &format!("{bytes:?}: {}", answer.status));
        }
    });
}

#[test]
fn a_body_beyond_sixteen_mebibytes_is_told_to_be_too_large() {
    let lab = Lab::shared();
    unharmed(lab, || {
        let padding = "x".repeat(17 << 20);
        let large = format!("{{\"Image\":\"busybox\",\"Labels\":{{\"a\":\"{padding}\"}}}}");
        let answer = create("bad-large", &large);
        assert_eq!(answer.status, 413, "{}", answer.head);
        assert!(message(&answer).starts_with("selvedge: "), "{}", message(&answer));
        let mut stream = connect(&lab.socket()).unwrap();
        stream.write_all(b"POST /containers/create?name=bad-large HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = [b"100000\r\n".to_vec(), vec![b'x'; 1 << 20], b"\r\n".to_vec()].concat();
        let sent = (0..20).take_while(|_| stream.write_all(&chunk).is_ok()).count();
        assert!(sent >= 16, "{sent}");
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
        // A length alone is enough to know.
        let head = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 99999999999\r\n\r\n";
        assert_eq!(send(&lab.socket(), head.as_bytes()).unwrap().status, 413);
        // What is large and allowed is served.
        let fits =
            format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"Ignored\":\"{}\"}}", "x".repeat(15 << 20));
        assert_eq!(create("bad-fits", &fits).status, 201);
        ours_or_absent(lab, "bad-fits", "15 MiB");
    });
}

#[test]
fn keys_that_occur_twice_or_in_another_case_are_settled_or_refused() {
    let lab = Lab::shared();
    unharmed(lab, || {
        for (index, body) in [
            r#"{"Image":"busybox","image":"busybox","Cmd":["true"]}"#,
            r#"{"IMAGE":"busybox","CMD":["true"],"hostconfig":{"networkmode":"default"}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"host"},"hostConfig":{"NetworkMode":"bridge"}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"host","networkMode":"bridge"}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"host"},"HostConfig":{}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Entrypoint":["a"],"entrypoint":["b"]}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Labels":{"a":"1"},"labels":{"selvedge.internal.wire":""}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Labels":{"selvedge.network":"default","selvedge.network":"none"}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Labels":{"selvedge.internal.wire":""}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Labels":{"selvedge.internal.wire":"{}"}}"#,
            r#"{"Image":"busybox","Cmd":["true"],"Im\u0061ge":"busybox","\u0045ntrypoint":["true"]}"#,
            // Go folds the long s and the Kelvin sign to s and k.
            "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"Ho\u{17f}tConfig\":{\"NetworkMode\":\"host\"}}",
            "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Networ\u{212a}Mode\":\"host\"}}",
            "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"Label\u{17f}\":{\"selvedge.internal.wire\":\"\"}}",
        ]
        .iter()
        .enumerate()
        {
            let name = format!("bad-keys-{index}");
            let answer = create(&name, body);
            assert!(answer.status == 201 || answer.status == 400, "{body}: {}{}", answer.head, answer.text());
            if answer.status == 400 {
                assert!(!message(&answer).is_empty());
            }
            wire_or_wished_otherwise(lab, &name, body);
        }
    });
}

/// A container without a wire must be one whose mode, as the engine understood it, gets none.
fn wire_or_wished_otherwise(lab: &Lab, name: &str, how: &str) {
    let seen = get(&lab.engine.socket, &format!("/containers/{name}/json")).expect("an answer");
    if seen.status == 200 {
        let container: serde_json::Value = serde_json::from_str(&seen.text()).expect("JSON");
        let wire = container["Config"]["Labels"]["selvedge.internal.wire"]
            .as_str()
            .is_some_and(|text| text.contains("address"));
        let host = container["HostConfig"]["NetworkMode"] == "host";
        let none = container["Config"]["Labels"]["selvedge.network"] == "none";
        assert!(wire != (host || none), "{how}: wire {wire}, host {host}, none {none}");
    }
    lab.engine.docker().remove(&[name]);
}

#[test]
fn labels_of_ours_with_nonsense_in_them_are_refused_with_a_reason() {
    let lab = Lab::shared();
    unharmed(lab, || {
        for label in [
            "selvedge.network=nonsense",
            "selvedge.ip=nonsense",
            "selvedge.ip=10.99.999.1",
            "selvedge.nonsense=1",
            "selvedge.name=",
            "selvedge.name=a..b",
            "selvedge.ip=127.0.0.1",
        ] {
            let output = lab.selvedge.docker().run(&[
                "create",
                "--name",
                "bad-label",
                "--label",
                label,
                "busybox",
                "true",
            ]);
            assert_eq!(output.code, 1, "{label}: {output:?}");
            assert!(
                output.stderr.contains("selvedge") && !output.stderr.contains("internal error"),
                "{label}: {}",
                output.stderr
            );
            ours_or_absent(lab, "bad-label", label);
        }
    });
}

#[test]
fn garbage_on_the_api_socket_is_answered_or_closed() {
    let lab = Lab::shared();
    unharmed(lab, || {
        let mut seed = 1_u32;
        let mut noise = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    seed.to_be_bytes()[0]
                })
                .collect()
        };
        for round in 0..200 {
            let bytes = noise(1 + round * 7);
            talk(&lab.socket(), &bytes);
            talk(&lab.socket(), &[b"GET /_ping HTTP/1.1\r\nHost: d\r\n", &bytes[..]].concat());
            talk(
                &lab.socket(),
                &[
                    b"POST /containers/create HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n",
                    &bytes[..],
                ]
                .concat(),
            );
        }
        for text in [
            "\r\n\r\n\r\n",
            "GET\r\n\r\n",
            "GET /_ping\r\n\r\n",
            "GET /_ping HTTP/2.0\r\n\r\n",
            "GET /_ping HTTP/1.1\r\nNo colon\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\x16\x03\x01\x02\x00\x01",
            "GET /%zz HTTP/1.1\r\nHost: d\r\n\r\n",
            "GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET  /_ping HTTP/1.1\r\n\r\n",
            "GET /_ping HTTP/1.1\r\nHost: d\r\n folded: x\r\n\r\n",
        ] {
            talk(&lab.socket(), text.as_bytes());
        }
        for text in [
            "GET /%zz HTTP/1.1\r\nHost: d\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "garbage\r\n\r\n",
        ] {
            let answer = send(&lab.socket(), text.as_bytes()).unwrap();
            assert_eq!(answer.status, 400, "{text}");
            assert!(message(&answer).starts_with("selvedge: "), "{}", message(&answer));
        }
    });
}

fn talk(socket: &Path, bytes: &[u8]) {
    let mut stream = connect(socket).unwrap();
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_flood_of_header_fields_is_refused() {
    let lab = Lab::shared();
    unharmed(lab, || {
        for fields in ["X-A: b\r\n".repeat(2000), format!("X-A: {}\r\n", "b".repeat(1 << 20))] {
            let answer =
                send(&lab.socket(), format!("GET /_ping HTTP/1.1\r\nHost: d\r\n{fields}\r\n").as_bytes())
                    .unwrap();
            assert_eq!(answer.status, 431, "{}", answer.head);
            assert!(message(&answer).starts_with("selvedge: "));
        }
        let target = format!("/containers/{}/json", "a".repeat(1 << 20));
        assert!(
            send(&lab.socket(), format!("GET {target} HTTP/1.1\r\nHost: d\r\n\r\n").as_bytes())
                .unwrap()
                .status
                >= 400
        );
        // Without an end it is refused as well, and does not grow for ever.
        let mut stream = connect(&lab.socket()).unwrap();
        while stream.write_all(&[b'a'; 65_536]).is_ok() {}
    });
}

#[test]
fn slow_clients_hold_up_nobody_else() {
    let lab = Lab::shared();
    unharmed(lab, || {
        let request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
        let mut slow: Vec<UnixStream> = (0..200).map(|_| connect(&lab.socket()).unwrap()).collect();
        let mut not_reading: Vec<UnixStream> = (0..20).map(|_| connect(&lab.socket()).unwrap()).collect();
        for stream in &mut not_reading {
            stream.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            // Pipelines much and reads nothing: it is held back, not buffered.
            while stream.write_all(b"GET /info HTTP/1.1\r\nHost: d\r\n\r\n").is_ok() {}
        }
        for byte in request {
            for stream in &mut slow {
                stream.write_all(&[*byte]).unwrap();
            }
        }
        let (answer, took) = timed(|| get(&lab.socket(), "/_ping").unwrap());
        assert!(answer.status == 200 && took < Duration::from_secs(2), "{took:?}");
        for mut stream in slow {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        }
    });
}

#[test]
fn garbage_on_dns_stops_nothing() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "bad-dns", "busybox", "sleep", "600"]);
    unharmed(lab, || {
        let flood = r#"
            for i in $(seq 200); do head -c $((i * 7)) /dev/urandom >/dev/udp/169.254.1.1/53 2>/dev/null; done
            for i in $(seq 50); do (exec 3<>/dev/tcp/169.254.1.1/53 && head -c $((i * 100)) /dev/urandom >&3) 2>/dev/null; done
            # A query whose name is a loop of pointers; one that says it has 65535 questions; an answer.
            printf '\0\1\1\0\0\1\0\0\0\0\0\0\300\014\0\1\0\1' >/dev/udp/169.254.1.1/53
            printf '\0\1\1\0\377\377\377\377\377\377\377\377\0\0\1\0\1' >/dev/udp/169.254.1.1/53
            printf '\0\1\201\200\0\1\0\0\0\0\0\0\0\0\1\0\1' >/dev/udp/169.254.1.1/53
            printf '' >/dev/udp/169.254.1.1/53
            # TCP: a length and nothing more, and a length of nothing.
            (exec 3<>/dev/tcp/169.254.1.1/53; printf '\377\377x' >&3; exec 4<>/dev/tcp/169.254.1.1/53; printf '\0\0' >&4; sleep 0.2)
            true
        "#;
        let output = selvedge_tests::shell::run(lab.host.command("bash").args(["-c", flood]), b"");
        assert_eq!(output.code, 0, "{output:?}");
        let dig = |more: &str| {
            lab.host.sh(&format!("dig +short +time=2 +tries=3 {more} @169.254.1.1 bad-dns.selvedge.internal"))
        };
        let address = docker.address("bad-dns");
        assert_eq!(dig("").ok(), address);
        assert_eq!(dig("+tcp").ok(), address);
    });
    docker.remove(&["bad-dns"]);
}

#[test]
fn no_way_of_writing_a_path_leads_round_the_rewrite() {
    let lab = Lab::shared();
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let paths = [
        "//containers/create",
        "/containers//create",
        "/./containers/create",
        "/x/../containers/create",
        "/containers/x/../create",
        "/containers/./create",
        "/containers/create/",
        "/containers/create//",
        "/Containers/Create",
        "/containers/CREATE",
        "/%63ontainers/create",
        "/containers/%63reate",
        "/containers%2fcreate",
        "/containers/%2e/create",
        "/%2e%2e/containers/create",
        "/containers/x/%2e%2e/create",
        "/containers/create%2f",
        "/containers/create%00",
        "/containers/create%20",
        "/containers/create;x",
        "/v1.41//containers/create",
        "/v1.41/./containers/create",
        "/v1.41/%63ontainers/create",
        "/v1.41%2fcontainers/create",
        "//v1.41/containers/create",
        "/%761.41/containers/create",
        "/v1%2e41/containers/create",
        "/v1.41.0/containers/create",
        "/v/containers/create",
        "/v1/containers/create",
        "/v01.41/containers/create",
        "/V1.41/containers/create",
        "/v1.41/v1.41/containers/create",
        "/v../containers/create",
        "/v1..41/containers/create",
        "http://d/containers/create",
        "HTTP://d/containers/create",
        "http://d//containers/create",
        "http:///containers/create",
        "unix://d/v1.41/containers/create",
        "http://d?x=/containers/create",
        "containers/create",
        "*",
        "http:/containers/create",
        "//d/containers/create",
        "///containers/create",
        "/containers/create#x",
        "/containers/create%23x",
        "/containers/create%3fname=x",
        "\\containers\\create",
        "/containers\\create",
        "/containers/%25%36%33reate",
        "/\u{17f}ontainers/create",
        "http://u:p@d/containers/create",
        "http://[::1]/containers/create",
        "x://containers/create",
        "/containers/create\u{a0}",
        "a:/containers/create",
        "a:b://containers/create",
        "1x://d/containers/create",
        "?/containers/create",
        "://d/containers/create",
    ];
    unharmed(lab, || {
        for method in ["POST", "post", "PosT", "GET", "PUT"] {
            for version in ["1.1", "1.0"] {
                for path in paths {
                    let mark = if path.contains('?') { '&' } else { '?' };
                    let request = format!(
                        "{method} {path}{mark}name=bad-path HTTP/{version}\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let mut stream = connect(&lab.socket()).unwrap();
                    stream.write_all(request.as_bytes()).unwrap();
                    let mut all = Vec::new();
                    let _ = stream.read_to_end(&mut all);
                    let line = String::from_utf8_lossy(&all).lines().next().unwrap_or_default().to_owned();
                    let created = line.contains(" 201 ");
                    let exists = get(&lab.engine.socket, "/containers/bad-path/json").unwrap().status == 200;
                    assert!(created || !exists, "{method} {path}: {line}, and yet it is there");
                    if created {
                        ours_or_absent_anyhow(lab, &all, &format!("{method} {path}"));
                    }
                }
            }
        }
    });
}

/// The container of a 201, by its id: a path trick may have lost the name.
fn ours_or_absent_anyhow(lab: &Lab, answer: &[u8], how: &str) {
    let text = String::from_utf8_lossy(answer);
    let id = text.split("\"Id\":\"").nth(1).and_then(|rest| rest.get(..64)).unwrap_or("bad-path").to_owned();
    ours_or_absent(lab, &id, how);
}

#[test]
fn a_request_to_an_engine_that_is_away_waits_and_is_then_told_so() {
    let host = Host::new();
    let engine = selvedge_tests::engine::Engine::debian(&host, &[]);
    let selvedge = Selvedge::start(&host, &engine, &["--engine-wait", "1s"]);
    let (keeper, worker) = (selvedge.keeper(), selvedge.worker());
    engine.end(Signal::SIGTERM);
    let requests = ["/_ping", "/containers/json", "/events", "/containers/x/json", "/info", "/nothing"];
    for path in requests {
        let (answer, took) = timed(|| get(&selvedge.socket(), path).unwrap());
        assert_eq!(answer.status, 503, "{path}: {}", answer.head);
        assert!(message(&answer).starts_with("selvedge: cannot connect"), "{path}: {}", message(&answer));
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(20), "{path}: {took:?}");
    }
    for (path, body) in [
        ("/containers/create", r#"{"Image":"busybox"}"#),
        ("/containers/x/start", ""),
        ("/commit?container=x", ""),
        ("/containers/x/attach", ""),
    ] {
        let answer = post(&selvedge.socket(), path, body).unwrap();
        assert_eq!(answer.status, 503, "{path}: {}", answer.head);
        assert!(!message(&answer).is_empty());
    }
    engine.start_again();
    until_true("it serves again", LIMIT, || {
        get(&selvedge.socket(), "/_ping").is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(selvedge.docker().run(&["run", "--rm", "busybox", "echo", "back"]).ok(), "back");
    assert_eq!((selvedge.keeper(), selvedge.worker()), (keeper, worker));
}

#[test]
fn an_engine_whose_socket_is_another_inode_is_found_again() {
    let lab = Lab::new();
    let inode = || {
        std::fs::metadata(&lab.engine.socket)
            .map(|data| std::os::unix::fs::MetadataExt::ino(&data))
            .unwrap_or(0)
    };
    let (before, worker) = (inode(), lab.selvedge.worker());
    lab.engine.end(Signal::SIGKILL);
    // A file of the same path in between, so that the next inode cannot be this one.
    std::fs::rename(&lab.engine.socket, lab.host.path("old.sock")).unwrap();
    let socket = lab.socket();
    let waiting = std::thread::spawn(move || get(&socket, "/version").unwrap());
    lab.engine.start_again();
    assert_ne!(inode(), before);
    assert_eq!(waiting.join().unwrap().status, 200, "a request waits for the engine to come back");
    let docker = lab.selvedge.docker();
    assert_eq!(docker.run(&["run", "--rm", "busybox", "echo", "served"]).ok(), "served");
    docker.start(&["--name", "after", "busybox", "sleep", "600"]);
    assert!(docker.address("after").starts_with("10.32."));
    assert_eq!(lab.selvedge.worker(), worker);
}
