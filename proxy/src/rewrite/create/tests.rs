//! The create rewrite as data: what goes in, what comes out.

use proptest::prelude::*;

use super::sent::HOST;
use super::*;

fn body(text: &str) -> Body {
    Body::read(text.as_bytes()).unwrap()
}

fn image(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> model::Config {
    let own = |words: Option<&[&str]>| words.map(|words| words.iter().map(|w| (*w).to_owned()).collect());
    model::Config { entrypoint: own(entrypoint), cmd: own(cmd), ..model::Config::default() }
}

fn merged(text: &str, image: &model::Config) -> (Option<Vec<String>>, Option<Vec<String>>) {
    let command = Command::merge(&body(text), image).unwrap();
    (command.entrypoint, command.cmd)
}

fn words(text: &str) -> Option<Vec<String>> {
    Some(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn entrypoint_and_command_are_merged_as_the_engine_does() {
    let image = image(Some(&["/entry"]), Some(&["serve"]));
    let cases = [
        (r#"{"Image":"x"}"#, words("/entry"), words("serve")),
        (r#"{"Image":"x","Cmd":["a","b"]}"#, words("/entry"), words("a b")),
        (r#"{"Image":"x","Cmd":"a b"}"#, words("/entry"), Some(vec!["a b".to_owned()])),
        (r#"{"Image":"x","Entrypoint":["e"]}"#, words("e"), None),
        (r#"{"Image":"x","Entrypoint":"e","Cmd":["c"]}"#, words("e"), words("c")),
        (r#"{"Image":"x","Entrypoint":[]}"#, Some(vec![]), words("serve")),
        (r#"{"Image":"x","Entrypoint":[""],"Cmd":["c"]}"#, None, words("c")),
        (r#"{"Image":"x","Entrypoint":null,"Cmd":[]}"#, words("/entry"), words("serve")),
        (r#"{"Image":"x","Entrypoint":[""]}"#, None, None),
    ];
    for (text, entrypoint, cmd) in cases {
        assert_eq!(merged(text, &image), (entrypoint, cmd), "{text}");
    }
}

#[test]
fn an_image_committed_behind_our_back_does_not_wait_twice() {
    for in_dev in [true, false] {
        for silent in [true, false] {
            let path = Place { in_dev, silent }.path();
            let image = image(Some(&[path, "/entry"]), None);
            assert_eq!(merged(r#"{"Image":"x"}"#, &image), (words("/entry"), None), "{path}");
        }
    }
}

fn wire(text: &str) -> Result<Wire, selvedge_engine::refusal::Refusal> {
    wants_wire(&body(text), false, false)
}

#[test]
fn who_gets_a_wire() {
    let yes = ["", "default", "bridge", "none"];
    let no = ["host", "container:abc", "mynet"];
    for (modes, expected) in [(&yes[..], Wire::Own), (&no[..], Wire::None)] {
        for mode in modes {
            let text = format!(r#"{{"HostConfig":{{"NetworkMode":{mode:?}}}}}"#);
            assert_eq!(wire(&text), Ok(expected), "{mode}");
        }
    }
    assert_eq!(wire(r#"{"Labels":{"selvedge.network":"none"}}"#), Ok(Wire::None));
    assert_eq!(wire(r#"{"Env":["WEAVE_CIDR=none"]}"#), Ok(Wire::None));
    let text = r#"{"Labels":{"selvedge.network":"default"},"HostConfig":{"NetworkMode":"mynet"}}"#;
    assert_eq!(wire(text), Ok(Wire::Own));
    for label in
        [r#""selvedge.network":"default""#, r#""selvedge.ip":"10.32.7.7""#, r#""selvedge.vip":"db:80""#]
    {
        let text = format!(r#"{{"Labels":{{{label}}},"HostConfig":{{"NetworkMode":"host"}}}}"#);
        assert_eq!(wire(&text).unwrap_err().status, 400, "{label}");
    }
}

#[test]
fn a_user_s_network_gets_a_wire_beside_it_when_that_is_set() {
    let of = |mode: &str, labels: &str| {
        let text = format!(r#"{{"Labels":{{{labels}}},"HostConfig":{{"NetworkMode":{mode:?}}}}}"#);
        wants_wire(&body(&text), true, false)
    };
    for (mode, expected) in [
        ("shop_default", Wire::Beside),
        ("bridge", Wire::Own),
        ("host", Wire::None),
        ("container:abc", Wire::None),
        ("ns:/run/netns/x", Wire::None),
        ("pasta", Wire::None),
    ] {
        assert_eq!(of(mode, ""), Ok(expected), "{mode}");
    }
    assert_eq!(of("shop_default", r#""selvedge.network":"none""#), Ok(Wire::None));
    assert_eq!(of("shop_default", r#""selvedge.ip":"10.32.7.7""#), Ok(Wire::Beside));
}

#[test]
fn one_that_counts_for_another_s_wire_may_stand_behind_a_virtual_address() {
    let text = r#"{"Labels":{"selvedge.vip":"db:80"},"HostConfig":{"NetworkMode":"container:abc"}}"#;
    assert_eq!(wants_wire(&body(text), false, true), Ok(Wire::None));
    let fixed = r#"{"Labels":{"selvedge.ip":"10.32.7.7"},"HostConfig":{"NetworkMode":"container:abc"}}"#;
    assert_eq!(wants_wire(&body(fixed), false, true).unwrap_err().status, 400);
}

#[test]
fn keys_in_another_case_cannot_get_round_us() {
    assert_eq!(wire(r#"{"hostconfig":{"NETWORKMODE":"host"}}"#), Ok(Wire::None));
    for text in [
        r#"{"HostConfig":{},"hostConfig":{"NetworkMode":"host"}}"#,
        r#"{"HostConfig":{"Mounts":[],"mounts":[]}}"#,
        r#"{"Labels":{"selvedge.ip":"10.32.0.9","selvedge.ip":"10.32.0.8"}}"#,
    ] {
        assert_eq!(Body::read(text.as_bytes()).unwrap_err().status, 400, "{text}");
    }
}

#[test]
fn a_users_mount_over_dev_is_seen() {
    for (text, expected) in [
        (r#"{"Binds":["/dev:/dev"]}"#, true),
        (r#"{"Binds":["/dev:/dev/:ro"]}"#, true),
        (r#"{"mounts":[{"target":"/dev"}]}"#, true),
        (r#"{"Tmpfs":{"/dev":""}}"#, true),
        (r#"{"Binds":["/dev/snd:/dev/snd"]}"#, false),
        (r#"{}"#, false),
    ] {
        let mut host = Object::parse(text.as_bytes()).unwrap();
        host.settle(HOST).unwrap();
        assert_eq!(covers_dev(&host), Ok(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn any_body_is_understood_or_refused(text in ".{0,120}") {
        let _ = Body::read(text.as_bytes());
    }

    #[test]
    fn bodies_of_odd_kinds_are_refused_not_dropped(key in prop_oneof![Just("Labels"), Just("Env"), Just("HostConfig")], value in prop_oneof![Just("1"), Just("\"x\""), Just("[1]"), Just("{\"a\":1}"), Just("true")]) {
        let text = format!("{{\"{key}\":{value}}}");
        if let Err(refusal) = Body::read(text.as_bytes()) {
            prop_assert_eq!(refusal.status, 400);
        }
    }
}
