//! The flags that an agent gives its executor, and Mesos' words for a length of time.
//! It must never refuse a flag that it does not know: each Mesos has others.

use std::collections::BTreeMap;
use std::time::Duration;

/// `--name=value`, as the agent's code has them.
#[derive(Debug, Clone)]
pub(crate) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Reads a command line.
    pub(crate) fn of(arguments: impl Iterator<Item = String>) -> Self {
        let flag = |argument: String| {
            let (name, value) = argument.strip_prefix("--")?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        Self(arguments.filter_map(flag).collect())
    }

    /// A flag's value, or nothing.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }
}

/// `5secs`, `1.5mins`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let unit = match &text[end..] {
        "ns" => 1e-9,
        "us" => 1e-6,
        "ms" => 1e-3,
        "secs" => 1.0,
        "mins" => 60.0,
        "hrs" => 3600.0,
        _ => return None,
    };
    Some(Duration::from_secs_f64(text[..end].parse::<f64>().ok()? * unit))
}
