//! Who gave a setting: an error names the place where it can be mended. It must never print what a variable holds.

use std::ffi::OsString;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line, or it cannot be told.
    Flag,
    /// A variable of the environment.
    Environment,
    /// The TOML file.
    File(PathBuf),
}

impl Source {
    /// How a setting is called there.
    pub(super) fn told(&self, name: &str) -> String {
        match self {
            Self::Flag => format!("--{name}"),
            Self::Environment => variable(name),
            Self::File(path) => format!("{}: {name} =", path.display()),
        }
    }

    /// Looks for a flag's name in the command line, then in the environment, then takes the file for it.
    pub(super) fn find(
        name: &str,
        words: &[OsString],
        is_set: impl Fn(&str) -> bool,
        file: Option<PathBuf>,
    ) -> Self {
        let flag = format!("--{name}");
        let is_it = |word: &OsString| {
            word.to_str().is_some_and(|word| {
                word.strip_prefix(&flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
            })
        };
        match file {
            _ if words.iter().any(is_it) => Self::Flag,
            _ if is_set(&variable(name)) => Self::Environment,
            Some(file) => Self::File(file),
            None => Self::Flag,
        }
    }
}

/// The variable of a flag.
pub(crate) fn variable(name: &str) -> String {
    format!("SELVEDGE_{}", name.to_uppercase().replace('-', "_"))
}

/// What clap says of a value that came from the environment, which it calls by the flag's name.
pub(crate) fn of_environment(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ContextValue};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let name = text(ContextKind::InvalidArg)?.split([' ', '=']).next()?.trim_start_matches("--");
    let value = text(ContextKind::InvalidValue)?;
    let words: Vec<OsString> = std::env::args_os().collect();
    let is_set = |variable: &str| std::env::var(variable).is_ok_and(|set| set.contains(value));
    let is_it = Source::find(name, &words, is_set, None) == Source::Environment;
    let reason = std::error::Error::source(error).map(|reason| format!(": {reason}")).unwrap_or_default();
    is_it.then(|| format!("{} {value:?}{reason}", variable(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_place_where_it_can_be_mended() {
        let words = ["selvedge", "run", "--pool=x", "--mtu", "5"].map(OsString::from);
        let set = |variable: &str| matches!(variable, "SELVEDGE_POOL" | "SELVEDGE_DNS_LISTEN");
        let find = |name| Source::find(name, &words, set, Some("/s.toml".into())).told(name);
        assert_eq!(find("pool"), "--pool", "the flag wins");
        assert_eq!((find("mtu"), find("dns-listen")), ("--mtu".to_owned(), "SELVEDGE_DNS_LISTEN".to_owned()));
        assert_eq!(find("policy"), "/s.toml: policy =");
        assert_eq!(Source::find("policy", &words, set, None), Source::Flag);
    }
}
