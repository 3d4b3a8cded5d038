//! The classifier against the ways round it, and against arbitrary paths.

use proptest::prelude::*;

use super::*;

fn route(method: &str, target: &str) -> Route {
    classify(method, target, false)
}

#[test]
fn creates_are_seen_in_every_spelling_that_the_engine_serves() {
    for target in [
        "/containers/create",
        "/v1.41/containers/create?name=x",
        "/v1.99/containers/create",
        "/containers/%63reate",
        "/%76%31.41/containers/create",
        "/containers%2fcreate",
        "http://localhost/v1.41/containers/create",
        "http://x/containers/create?name=http://y",
        // Go takes these for a scheme without an authority.
        "http:/containers/create",
        "a:/containers/create?name=x",
        "x+y-1.z:/v1.41/containers/create",
        "http:///containers/create",
    ] {
        assert_eq!(route("POST", target), Route::Rewritten(Endpoint::Create), "{target}");
    }
}

#[test]
fn unclean_paths_are_redirected_like_the_engine_does() {
    for target in [
        "//containers/create",
        "/./containers/create",
        "/x/../containers/create",
        "/containers/%2e/create",
        "/containers//create",
        "/%2e%2e/containers/create",
    ] {
        assert_eq!(route("POST", target), Route::Redirect("/containers/create".into()), "{target}");
    }
}

#[test]
fn what_the_engine_does_not_serve_as_a_create_passes() {
    for target in [
        "/containers/create/",
        "/Containers/create",
        "/containers/CREATE",
        "/containers/create%20",
        "/v/containers/create",
        "/containers/create;x",
        "http:containers/create",
        "1x:/containers/create",
        ":/containers/create",
        "http://d?x=/containers/create",
    ] {
        assert!(!matches!(route("POST", target), Route::Rewritten(_) | Route::Redirect(_)), "{target}");
    }
    assert_eq!(route("post", "/containers/create"), Route::Stream);
    assert_eq!(route("POST", "/containers/%zz"), Route::Malformed);
}

#[test]
fn names_are_decoded_and_may_hold_slashes() {
    assert_eq!(route("POST", "/containers/a/b/start"), Route::Rewritten(Endpoint::Start("a/b".into())));
    assert_eq!(route("GET", "/v1.24/containers/%61b/json"), Route::Rewritten(Endpoint::Inspect("ab".into())));
    assert_eq!(route("GET", "/containers/json"), Route::Rewritten(Endpoint::List));
    assert_eq!(route("GET", "/images/a/b:c/json"), Route::Rewritten(Endpoint::ImageInspect("a/b:c".into())));
}

#[test]
fn long_ones_and_unknown_ones_are_streams() {
    for (method, target) in [
        ("POST", "/containers/x/wait?condition=next-exit"),
        ("POST", "/containers/x/attach"),
        ("GET", "/containers/x/logs?follow=1"),
        ("GET", "/events"),
        ("POST", "/build"),
        ("POST", "/session"),
        ("POST", "/containers/x/stop"),
        ("PUT", "/containers/x/archive"),
        ("GET", "/a/thing/of/next/year"),
    ] {
        assert_eq!(route(method, target), Route::Stream, "{target}");
    }
}

#[test]
fn query_values_are_form_decoded() {
    assert_eq!(query_value("a=1&name=x%2Fy+z", "name").as_deref(), Some("x/y z"));
    assert_eq!(query_value("a=1", "name"), None);
}

/// What the engine's router does, written another way: decode, compare with the clean form, match segments.
fn engine_would_create(target: &str) -> bool {
    let Some(path) = percent_decode(path_of(target)) else { return false };
    let rest = match path.strip_prefix("/v").and_then(|r| r.split_once('/')) {
        Some((v, rest)) if !v.is_empty() && v.chars().all(|c| c.is_ascii_digit() || c == '.') => {
            format!("/{rest}")
        }
        _ => path.clone(),
    };
    rest == "/containers/create"
}

proptest! {
    #[test]
    fn no_spelling_of_a_create_gets_round_the_rewrite(
        parts in proptest::collection::vec(prop_oneof![
            Just("/"), Just("containers"), Just("create"), Just("%2f"), Just("%63reate"), Just("v1.41"), Just("."),
            Just(".."), Just("%2e"), Just("?"), Just("x"), Just("http://h"), Just("http:"), Just(":"), Just("%"), Just("//"), Just("C"),
        ], 0..10)
    ) {
        let target = parts.concat();
        let route = route("POST", &target);
        if engine_would_create(&target) {
            prop_assert_eq!(route, Route::Rewritten(Endpoint::Create));
        }
    }

    #[test]
    fn any_target_is_classified_without_a_panic(method in "[A-Za-z]{0,8}", target in ".{0,64}") {
        let _ = classify(&method, &target, true);
    }

    #[test]
    fn encoding_and_decoding_agree(text in ".{0,32}") {
        prop_assert_eq!(percent_decode(&percent_encode(&text)), Some(text));
    }
}
