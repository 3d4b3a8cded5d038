//! Ends a suite that hangs, and says where: a run of all suites then fails in minutes and goes on with the next one.
//!
//! It must never be how a test ends that is only slow: the limit is several times what the slowest suite takes.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Once;
use std::time::Duration;

/// How long one suite may take, in seconds, unless `SELVEDGE_TESTS_LIMIT` says otherwise (a long storm of kills).
const LIMIT: u64 = 900;

/// Starts the clock of this process, once.
///
/// # Panics
/// When no thread can be had.
pub fn watch() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let given = std::env::var("SELVEDGE_TESTS_LIMIT").ok().and_then(|text| text.parse().ok());
        let limit = Duration::from_secs(given.unwrap_or(LIMIT));
        let name = "limit".to_owned();
        std::thread::Builder::new().name(name).spawn(move || end_after(limit)).expect("a thread can be had");
    });
}

fn end_after(limit: Duration) {
    std::thread::sleep(limit);
    let text = format!(
        "\nthis suite hangs: it has run for {} s. Its threads, and what each waits in:\n{}",
        limit.as_secs(),
        threads()
    );
    // Not by `eprintln`, which belongs to the test that started this thread.
    let _ = std::io::stderr().write_all(text.as_bytes());
    // Not a panic: that ends a thread, and the tests would be waited for.
    std::process::abort();
}

/// A line per thread: a test's thread has the first 15 letters of the test's name.
fn threads() -> String {
    let mut lines = String::new();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let _ = writeln!(lines, "  {:<16} {}", read("comm").trim(), read("wchan").trim());
    }
    lines
}
