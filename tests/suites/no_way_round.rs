//! No spelling of a request, and nothing sent along with another one, makes a container that Selvedge did not
//! rewrite; and heads of every age are answered as the engine answers them.

use std::io::{Read, Write};
use std::net::Shutdown;

use selvedge_tests::Lab;
use selvedge_tests::http::{Answer, connect, get, post, send};

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

/// A container that the engine has must have a wire, whatever way it came by.
fn ours(lab: &Lab, name: &str, how: &str) {
    let seen = get(&lab.engine.socket, &format!("/containers/{name}/json")).expect("an answer");
    assert_eq!(seen.status, 200, "{how}: answered with 201, and yet it is not there");
    assert!(seen.text().contains("selvedge.internal.wire"), "{how}: a container without a wire");
    lab.engine.docker().remove(&[name]);
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
        assert!(all.starts_with(b"HTTP/1."), "{first}: the first request was not answered");
        let exists = get(&lab.engine.socket, "/containers/raw-smuggled/json").unwrap().status == 200;
        assert!(!exists || is_ours("raw-smuggled"), "{first}: {}", String::from_utf8_lossy(&all));
        lab.selvedge.docker().remove(&["raw-smuggled"]);
    }
}

const PATHS: &[&str] = &[
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

/// Ways of writing the path that the engine takes for a create, and so do we: each must make a container.
const CREATES: &[&str] = &[
    "/%63ontainers/create",
    "/containers/%63reate",
    "/containers%2fcreate",
    "/v1.41/%63ontainers/create",
    "/v1.41%2fcontainers/create",
    "/%761.41/containers/create",
    "/v1%2e41/containers/create",
    "/v1.41.0/containers/create",
    "/v01.41/containers/create",
    "http://d/containers/create",
    "HTTP://d/containers/create",
    "http:///containers/create",
    "unix://d/v1.41/containers/create",
    "http:/containers/create",
    "http://u:p@d/containers/create",
    "http://[::1]/containers/create",
    "a:/containers/create",
];

#[test]
fn no_way_of_writing_a_path_leads_round_the_rewrite() {
    let mut made = Vec::new();
    for method in ["POST", "post", "PosT", "GET", "PUT"] {
        for version in ["1.1", "1.0"] {
            let makes = |path: &&&str| try_path(method, path, version);
            made.extend(PATHS.iter().filter(makes).map(|path| format!("{method} {path} HTTP/{version}")));
        }
    }
    // A Selvedge that closed every connection would have made none.
    let of = |version| CREATES.iter().map(move |path| format!("POST {path} HTTP/{version}"));
    assert_eq!(made, of("1.1").chain(of("1.0")).collect::<Vec<_>>());
}

/// A container that comes of it must be ours, and one that did not come must not be there. Whether one came.
fn try_path(method: &str, path: &str, version: &str) -> bool {
    let lab = Lab::shared();
    let body = r#"{"Image":"busybox","Cmd":["true"]}"#;
    let (mark, length) = (if path.contains('?') { '&' } else { '?' }, body.len());
    let request = format!(
        "{method} {path}{mark}name=bad-path HTTP/{version}\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = connect(&lab.socket()).expect("it answers");
    stream.write_all(request.as_bytes()).expect("it answers");
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let line = String::from_utf8_lossy(&all).lines().next().unwrap_or_default().to_owned();
    assert!(line.starts_with("HTTP/1."), "{method} {path}: no answer at all: {line:?}");
    if line.contains(" 201 ") {
        ours_by_id(lab, &all, &format!("{method} {path}"));
        return true;
    }
    let exists = get(&lab.engine.socket, "/containers/bad-path/json").expect("it answers").status == 200;
    assert!(!exists, "{method} {path}: {line}, and yet it is there");
    false
}

/// The container of a 201, by its id: a path trick may have lost the name.
fn ours_by_id(lab: &Lab, answer: &[u8], how: &str) {
    let text = String::from_utf8_lossy(answer);
    let id = text.split("\"Id\":\"").nth(1).and_then(|rest| rest.get(..64)).unwrap_or("bad-path").to_owned();
    ours(lab, &id, how);
}

#[test]
fn keys_that_occur_twice_or_in_another_case_are_settled_or_refused() {
    let lab = Lab::shared();
    let mut settled = 0;
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
        let answer = post(&lab.socket(), &format!("/v1.41/containers/create?name={name}"), body).expect("an answer");
        assert!(answer.status == 201 || answer.status == 400, "{body}: {}{}", answer.head, answer.text());
        match answer.status {
            400 => assert!(!message(&answer).is_empty()),
            _ => settled += 1,
        }
        wire_or_wished_otherwise(lab, &name, body);
    }
    assert!(settled >= 3, "all but {settled} were refused");
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

/// The message of an error in Docker's form.
fn message(answer: &Answer) -> String {
    let value: serde_json::Value = serde_json::from_str(&answer.text())
        .unwrap_or_else(|error| panic!("{error}: {}{}", answer.head, answer.text()));
    value["message"].as_str().unwrap_or_else(|| panic!("no message: {value}")).to_owned()
}
