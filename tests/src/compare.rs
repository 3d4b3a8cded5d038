//! The same thing done directly and through Selvedge: nobody may be able to tell which was which.

use crate::docker::Docker;
use crate::shell::Output;

/// Runs a script in which `docker` is the CLI, first directly, then through Selvedge, and compares stdout,
/// stderr and exit code. A script cleans up after itself, so that names can be used again.
///
/// # Panics
/// When they differ; both are shown.
pub fn same(name: &str, direct: &Docker, through: &Docker, script: &str) {
    same_with(name, (direct, through), script, b"");
}

/// The same, with something to read on stdin.
///
/// # Panics
/// When they differ; both are shown.
pub fn same_with(name: &str, (direct, through): (&Docker, &Docker), script: &str, stdin: &[u8]) {
    let plain = normal(&direct.script(script, stdin));
    // Two that say nothing, or cannot be run, are alike whatever Selvedge does.
    let is_blind = plain.stdout.is_empty() && plain.stderr.is_empty()
        || plain.stderr.contains("Cannot connect to the Docker daemon");
    assert!(!is_blind, "{name}: there is nothing to compare\n{}", show(&plain));
    let ours = normal(&through.script(script, stdin));
    assert!(plain == ours, "{name}\n--- directly\n{}--- through Selvedge\n{}", show(&plain), show(&ours));
}

fn show(output: &Output) -> String {
    format!("exit code {}\nstdout:\n{}\nstderr:\n{}\n", output.code, output.stdout, output.stderr)
}

fn normal(output: &Output) -> Output {
    let stderr = normalised(&without_race(&output.stderr));
    Output { stdout: normalised(&output.stdout), stderr, code: output.code }
}

/// What a CLI said, but for a line that it does not always get to say before it ends, with or without us.
pub(crate) fn without_race(stderr: &str) -> String {
    let race = |line: &&str| !line.contains("error waiting for container: context canceled");
    stderr.split_inclusive('\n').filter(race).collect()
}

/// A text without what differs from run to run: ids, times, sizes of the moment.
#[must_use]
pub fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '+') {
            word.push(c);
            continue;
        }
        out.push_str(&replaced(&word));
        word.clear();
        out.push(c);
    }
    out + &replaced(&word)
}

fn replaced(word: &str) -> String {
    let is_time = word.len() >= 20 && word.starts_with("20") && word.contains('T') && word.contains(':');
    if is_time {
        return "TIME".to_owned();
    }
    let parts = word.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    parts.map(|part| replaced_id(part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()), part)).collect()
}

fn replaced_id(bare: &str, part: &str) -> String {
    let is_id = matches!(bare.len(), 12 | 64) && bare.chars().all(|c| c.is_ascii_hexdigit());
    if is_id { part.replace(bare, "ID") } else { part.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_taken_out() {
        let id = "8c85f1b3a48a".repeat(6)[..64].to_owned();
        assert_eq!(normalised(&format!("x sha256:{id}\n")), "x sha256:ID\n");
        assert_eq!(normalised(&format!("/a/{id}-json.log {}.", &id[..12])), "/a/ID-json.log ID.");
        assert_eq!(normalised("2026-11-23T01:04:45.1Z up"), "TIME up");
        assert_eq!(normalised("abc 12 \"exited\""), "abc 12 \"exited\"");
    }
}
