//! Whether a container's seccomp profile may end `wait` for a system call: then `wait` is told, by the path under which it is
//! mounted, to make none. A call that is only refused does no harm (`wait/src/sign.rs`).
//!
//! Must never take a profile for harmless that it does not understand in full: a silent wait is right under each.

use std::collections::BTreeSet;

use selvedge_engine::object::{BodyError, Object};
use selvedge_engine::resolver::Resolver;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The calls of a `wait` that is not silent: name, number, first argument where it is fixed.
const CALLS: &str = include_str!("../../../../wait/system-calls");

/// Whether `wait` must be silent in a container with this HostConfig, of an engine with these settings.
pub(super) fn may_end_wait(host: &Object, engine: &Resolver) -> Result<bool, BodyError> {
    let options = host.get::<Vec<String>>("SecurityOpt")?.unwrap_or_default();
    // Both signs are taken by the engine, and the last one counts.
    let mut named = options.iter().filter_map(|option| option.split_once(['=', ':']));
    let own = named.rfind(|(name, _)| *name == "seccomp").map(|(_, profile)| profile);
    Ok(match own.or(engine.seccomp.as_deref()) {
        // The engine's own profile only refuses.
        None | Some("unconfined" | "builtin" | "") => false,
        Some(text) => serde_json::from_str::<Profile>(text).map_or(true, |profile| profile.may_end_wait()),
    })
}

/// A profile as Docker writes it. A key that is not known, or in another case, makes it one that is not understood.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
    #[serde(rename = "defaultErrnoRet", default)]
    _default_errno: IgnoredAny,
    #[serde(rename = "architectures", default)]
    _architectures: IgnoredAny,
    #[serde(rename = "archMap", default)]
    _arch_map: IgnoredAny,
    #[serde(rename = "flags", default)]
    _flags: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<BTreeSet<String>>,
    action: String,
    #[serde(default)]
    args: Option<Vec<Condition>>,
    #[serde(default)]
    includes: Option<Object>,
    #[serde(default)]
    excludes: Option<Object>,
    #[serde(rename = "errnoRet", default)]
    _errno: IgnoredAny,
    #[serde(rename = "comment", default)]
    _comment: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    index: u32,
    value: u64,
    #[serde(rename = "valueTwo", default)]
    _value_two: IgnoredAny,
    op: String,
}

/// One call of `wait`.
struct Call<'a> {
    name: &'a str,
    first: Option<u64>,
}

fn calls() -> impl Iterator<Item = Call<'static>> {
    CALLS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?;
        Some(Call { name, first: words.nth(1).and_then(|word| word.parse().ok()) })
    })
}

impl Profile {
    fn may_end_wait(&self) -> bool {
        calls().any(|call| self.may_end(&call))
    }

    /// Whether a call could meet an action that does more than refuse it.
    fn may_end(&self, call: &Call<'_>) -> bool {
        let rules = || self.syscalls.iter().flatten().filter(|rule| rule.names(call.name));
        let settled = rules().any(|rule| rule.always_holds(call));
        (!settled && !is_harmless(&self.default_action)) || rules().any(|rule| !is_harmless(&rule.action))
    }
}

impl Rule {
    fn names(&self, call: &str) -> bool {
        self.name.as_deref() == Some(call) || self.names.as_ref().is_some_and(|names| names.contains(call))
    }

    fn always_holds(&self, call: &Call<'_>) -> bool {
        let no_filter = [&self.includes, &self.excludes].into_iter().flatten().all(Object::is_empty);
        no_filter && self.args.iter().flatten().all(|condition| condition.holds(call))
    }
}

impl Condition {
    /// Whether it surely holds for the call.
    fn holds(&self, call: &Call<'_>) -> bool {
        match (self.index, call.first, self.op.as_str()) {
            (0, Some(first), "SCMP_CMP_EQ") => first == self.value,
            (0, Some(first), "SCMP_CMP_NE") => first != self.value,
            _ => false,
        }
    }
}

/// What the call returns from. `SCMP_ACT_TRACE` without a tracer refuses with ENOSYS.
fn is_harmless(action: &str) -> bool {
    matches!(action, "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_silent(options: &str, engine: Option<&str>) -> bool {
        let host = Object::parse(options.as_bytes()).unwrap();
        let engine = Resolver { seccomp: engine.map(str::to_owned), ..Resolver::default() };
        may_end_wait(&host, &engine).unwrap()
    }

    fn of_profile(profile: &str) -> bool {
        is_silent(&serde_json::json!({"SecurityOpt": [format!("seccomp={profile}")]}).to_string(), None)
    }

    #[test]
    fn only_a_profile_that_may_end_the_process_makes_it_silent() {
        let listed: Vec<&str> = calls().map(|call| call.name).collect();
        let allowed = serde_json::json!([{"names": listed, "action": "SCMP_ACT_ALLOW"}]).to_string();
        let but_vsock: Vec<&str> = listed.iter().copied().filter(|name| *name != "socket").collect();
        let but_vsock = serde_json::json!([
            {"names": but_vsock, "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
            {"name": "socket", "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},
        ]);
        let cases = [
            (r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#.to_owned(), false),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"syscalls":null}"#.to_owned(), false),
            (r#"{"defaultAction":"SCMP_ACT_KILL"}"#.to_owned(), true),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(), true),
            (format!(r#"{{"defaultAction":"SCMP_ACT_KILL_PROCESS","syscalls":{allowed}}}"#), false),
            (format!(r#"{{"defaultAction":"SCMP_ACT_TRAP","syscalls":{but_vsock}}}"#), false),
            (deny("SCMP_ACT_TRAP", "ppoll", ""), true),
            (deny("SCMP_ACT_TRAP", "mount", ""), false),
            (deny("SCMP_ACT_ERRNO", "ppoll", ""), false),
            (deny("SCMP_ACT_KILL", "socket", r#","args":[{"index":0,"value":16,"op":"SCMP_CMP_EQ"}]"#), true),
            // Go takes keys in any case; what is not understood is not trusted.
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","Syscalls":[]}"#.to_owned(), true),
            ("/a/file".to_owned(), true),
        ];
        for (profile, expected) in cases {
            assert_eq!(of_profile(&profile), expected, "{profile}");
        }
    }

    fn deny(action: &str, call: &str, more: &str) -> String {
        format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["{call}"],"action":"{action}"{more}}}]}}"#
        )
    }

    #[test]
    fn the_create_wins_over_the_engine_and_its_last_word_over_the_first() {
        let kill = r#"{"defaultAction":"SCMP_ACT_KILL"}"#;
        assert!(!is_silent("{}", None));
        assert!(is_silent("{}", Some(kill)));
        assert!(!is_silent(r#"{"SecurityOpt":["seccomp=unconfined"]}"#, Some(kill)));
        assert!(is_silent(r#"{"SecurityOpt":["no-new-privileges"]}"#, Some(kill)));
        assert!(!is_silent(r#"{"SecurityOpt":["seccomp:x","seccomp:builtin"]}"#, None));
    }
}
