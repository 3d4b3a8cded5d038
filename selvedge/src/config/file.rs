//! The TOML file: reads it, and says in one line what is wrong with it. It must never take a key that it does not know for
//! nothing, nor answer a typing error with a list of all keys.

use std::path::Path;

use clap::Args;

use super::value::ConfigError;
use crate::cli::Options;

/// How alike two words must be, from 0 to 1, for one to be meant for the other.
const ALIKE: f64 = 0.8;

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Options, ConfigError> {
    let fail = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    parse(&text).map_err(fail)
}

/// All keys that there are.
pub(crate) fn keys() -> Vec<String> {
    let command = Options::augment_args(clap::Command::new("run"));
    let flags = command.get_arguments().filter_map(|argument| argument.get_long());
    // A file cannot name another one.
    flags.filter(|name| *name != "config").map(str::to_owned).collect()
}

fn parse(text: &str) -> Result<Options, String> {
    if let Ok(table) = toml::from_str::<toml::Table>(text)
        && let Some(unknown) = table.keys().find(|key| !keys().contains(key))
    {
        return Err(format!("line {}: {}", line_of(text, unknown), unknown_key(unknown)));
    }
    // toml's own text spans lines and draws an arrow; ours is one line.
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let number = text[..at].matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        let reason = hint(line).unwrap_or_else(|| error.message().replace('\n', " "));
        format!("line {number}: {reason}")
    })
}

fn line_of(text: &str, key: &str) -> usize {
    let names = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['[', '"']).strip_prefix(key);
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-' || c == '_'))
    };
    text.lines().position(names).map_or(1, |at| at + 1)
}

fn unknown_key(unknown: &str) -> String {
    match alike(unknown) {
        Some(key) => format!("there is no key {unknown}; did you mean {key}?"),
        None => format!("there is no key {unknown}; the keys are the flags of `selvedge run --help`"),
    }
}

fn alike(unknown: &str) -> Option<String> {
    let unknown = unknown.to_lowercase().replace('_', "-");
    let rated = keys().into_iter().map(|key| (strsim::jaro_winkler(&unknown, &key), key));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= ALIKE).then_some(best.1)
}

/// What to do about a value without quotes where one wants them.
fn hint(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split('#').next().unwrap_or_default().trim());
    let is_bare = !value.is_empty() && !value.starts_with(['"', '\'', '[', '{']);
    let is_word = value.parse::<i64>().is_err() && !matches!(value, "true" | "false");
    (is_bare && is_word).then(|| format!("{key} wants quotes: {key} = {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err()
    }

    #[test]
    fn a_typing_error_is_answered_with_what_was_meant() {
        let told = error("pool = \"10.64.0.0/16\"\ndns_listen = \"169.254.1.1\"\n");
        assert_eq!(told, "line 2: there is no key dns_listen; did you mean dns-listen?");
        assert_eq!(error("pol = \"x\"\n"), "line 1: there is no key pol; did you mean pool?");
        let nothing = error("colour = \"red\"\n");
        assert_eq!(
            nothing,
            "line 1: there is no key colour; the keys are the flags of `selvedge run --help`"
        );
        assert!(error("[cluster]\nx = 1\n").contains("no key cluster"));
    }

    #[test]
    fn a_value_without_quotes_is_told_with_quotes() {
        assert_eq!(error("pool = 10.64.0.0/16\n"), "line 1: pool wants quotes: pool = \"10.64.0.0/16\"");
        assert_eq!(error("\nlog = info # all\n"), "line 2: log wants quotes: log = \"info\"");
        assert_eq!(error("mtu = 30s"), "line 1: mtu wants quotes: mtu = \"30s\"");
        let other = error("block-size = \"24\"\n");
        assert!(other.starts_with("line 1: invalid type: string") && !other.contains('\n'), "{other}");
    }

    #[test]
    fn the_example_file_has_every_key_and_no_other() {
        let example = include_str!("../../../packaging/selvedge.toml.example");
        let settings = example.lines().filter_map(|line| line.strip_prefix('#'));
        let settings: Vec<&str> =
            settings.filter(|line| line.starts_with(|c: char| c.is_lowercase())).collect();
        let text = settings.join("\n");
        let table: toml::Table = toml::from_str(&text).unwrap();
        let (mut there, mut wanted): (Vec<String>, Vec<String>) = (table.keys().cloned().collect(), keys());
        there.sort();
        wanted.sort();
        assert_eq!(there, wanted);
        // Each value is one that is taken; what names files does not lie here.
        let mut options = parse(&text).unwrap();
        (options.registry_ca, options.registry_cert, options.registry_key) = (None, None, None);
        options.dns_upstream_ca = None;
        crate::config::Config::new(options).unwrap();
    }
}
