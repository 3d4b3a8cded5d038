//! How a setting's text is read, and what is said of one that makes no sense. Must never guess what was meant.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::source::Source;

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One setting makes no sense.
    #[error("{} {value:?}: {reason}", by.told(name))]
    Value {
        /// Who gave it.
        by: Source,
        /// The flag's name.
        name: &'static str,
        /// As given.
        value: String,
        /// What is wrong.
        reason: String,
    },
}

pub(super) fn parse<T>(
    name: &'static str,
    value: &str,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    read(value).map_err(|reason| ConfigError::Value {
        by: Source::Flag,
        name,
        value: value.to_owned(),
        reason,
    })
}

/// What one of two words means.
/// The text of a PEM file, for a setting that names one.
pub(super) fn pem(name: &'static str, path: Option<&Path>) -> Result<Option<String>, ConfigError> {
    let read = |path: &Path| {
        parse(name, &path.display().to_string(), |_| {
            let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
            if text.contains("-----BEGIN ") { Ok(text) } else { Err("is not a PEM file".to_owned()) }
        })
    };
    path.map(read).transpose()
}

pub(super) fn one_of<T>(text: &str, words: [(&str, T); 2]) -> Result<T, String> {
    let told = format!("must be {} or {}", words[0].0, words[1].0);
    words.into_iter().find(|(word, _)| *word == text).map(|(_, meaning)| meaning).ok_or(told)
}

/// A time like `30s`, `500ms` or `2m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| "must be like 30s or 500ms".to_owned())?;
    match unit {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(u64::from(number) * 60)),
        "h" => Ok(Duration::from_secs(u64::from(number) * 3600)),
        _ => Err("must be like 30s or 500ms".to_owned()),
    }
}
