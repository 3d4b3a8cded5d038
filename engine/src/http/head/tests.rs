//! What heads mean, and which are refused. Must never need a socket.

use super::*;

#[test]
fn requests_of_the_docker_cli_are_read() {
    let head = b"POST /v1.41/containers/x/attach?stream=1 HTTP/1.1\r\nHost: \r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\nrest";
    let parsed = request(head).unwrap().unwrap();
    assert!(parsed.upgrade && parsed.keep_alive);
    assert_eq!((parsed.body, parsed.len), (BodyLength::Fixed(0), head.len() - 4));
    assert_eq!(request(&head[..40]), Ok(None));
}

fn refused(fields: &str) -> HeadError {
    request(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes()).unwrap_err()
}

#[test]
fn what_gos_server_refuses_is_refused_in_its_words() {
    for (fields, expected) in [
        ("Content-Length: 1\r\nContent-Length: 2\r\n", HeadError::Malformed),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", HeadError::AmbiguousLength),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", HeadError::Coding),
        ("Transfer-Encoding: gzip, chunked\r\n", HeadError::Coding),
        ("Content-Length: +1\r\n", HeadError::Malformed),
        ("Content-Length: 99999999999999999999\r\n", HeadError::Malformed),
        ("X: a\x01b\r\n", HeadError::Malformed),
        ("X Y: a\r\n", HeadError::BadName),
        ("no colon\r\n", HeadError::Malformed),
    ] {
        assert_eq!(refused(fields), expected, "{fields}");
    }
    assert_eq!(request(b"\x16\x03\x01 garbage\r\n\r\n"), Err(HeadError::Malformed));
    assert_eq!(request(b"GET / HTTP/2.0\r\n\r\n"), Err(HeadError::Version));
    assert_eq!(request(b"GET / HTTP/11\r\n\r\n"), Err(HeadError::Malformed));
}

#[test]
fn a_head_may_be_as_large_as_gos_server_takes_it() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X-A: 1\r\n".repeat(60_000));
    assert_eq!(request(many.as_bytes()).unwrap().unwrap().len, many.len());
    let large = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    assert_eq!(request(large.as_bytes()), Err(HeadError::TooLarge));
    assert_eq!(request(&large.as_bytes()[..MAX_HEAD]), Err(HeadError::TooLarge));
}

#[test]
fn connections_are_kept_as_either_version_says() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
    ] {
        assert_eq!(request(head.as_bytes()).unwrap().unwrap().keep_alive, expected, "{head}");
    }
}

#[test]
fn the_first_expectation_counts() {
    for (fields, expected) in [
        ("Expect: 100-Continue\r\n", Expect::Continue),
        ("Expect: nonsense\r\nExpect: 100-continue\r\n", Expect::Other),
        ("Expect:\r\n", Expect::Nothing),
    ] {
        let head = request(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        assert_eq!(head.expect, expected, "{fields}");
    }
}

#[test]
fn the_preface_of_http2_is_waited_for() {
    assert_eq!(request(&PREFACE[..10]), Ok(None));
    assert_eq!(request(PREFACE).unwrap().unwrap().method, "PRI");
    assert_eq!(request(b"PRI * HTTP/2.0\r\nHost: d\r\n\r\n"), Err(HeadError::Version));
}

#[test]
fn a_long_head_in_small_pieces_is_parsed_few_times() {
    let head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let mut growing = Growing::default();
    let parsed: Vec<usize> =
        (1..=head.len()).filter(|end| growing.is_worth_parsing(&head.as_bytes()[..*end])).collect();
    assert_eq!(parsed.last(), Some(&head.len()));
    assert!(parsed.len() < 20, "{parsed:?}");
}

#[test]
fn fields_are_replaced_and_the_rest_stays_as_it_was() {
    let head = b"GET / HTTP/1.1\r\nhOst:  x\r\nConnection: keep-alive\r\nX-A: 1\r\nX-A: 2\r\n\r\n";
    let out = with_fields(head, &["connection"], "Connection: close\r\n");
    assert_eq!(out, b"GET / HTTP/1.1\r\nhOst:  x\r\nX-A: 1\r\nX-A: 2\r\nConnection: close\r\n\r\n");
}

#[test]
fn responses_without_a_body_are_known() {
    assert_eq!(
        response(b"HTTP/1.1 204 No Content\r\n\r\n", false).unwrap().unwrap().body,
        BodyLength::Fixed(0)
    );
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(response(head, true).unwrap().unwrap().body, BodyLength::Fixed(0));
    assert_eq!(response(b"HTTP/1.1 200 OK\r\n\r\n", false).unwrap().unwrap().body, BodyLength::UntilClose);
}
