//! The kernel's version of our table, as nft lists it. It must never change anything but wake a dormant table.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::error::Error;
use crate::nft;

/// The table, in the syntax in which we write it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Have {
    /// Whether there is one.
    pub(super) there: bool,
    /// Its chains, each with its hook (none for a chain without one) and the marks of its rules.
    pub(super) chains: BTreeMap<String, (Option<String>, Vec<String>)>,
    /// Its sets and maps, each with its elements.
    pub(super) sets: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    table: Option<Table>,
    set: Option<Set>,
    map: Option<Set>,
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Table {
    /// nft 1.0.6 prints anything here; the only flag that a table of ours could have is `dormant`.
    flags: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Value>,
}

#[derive(Deserialize)]
struct Chain {
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

#[derive(Deserialize)]
struct Rule {
    chain: String,
    comment: Option<String>,
}

impl Have {
    /// Reads the table.
    ///
    /// # Errors
    /// nft cannot list it.
    pub(super) fn read(table: &str) -> Result<Self, Error> {
        let found: Option<Listing> = nft::list(&["list", "table", "inet", table])?;
        let Some(listing) = found else { return Ok(Self::default()) };
        // A dormant table counts as none: it is written again.
        match listing.nftables.iter().any(|item| item.table.as_ref().is_some_and(|one| one.flags.is_some())) {
            true => Err(Error::Nft { message: format!("the table {table} is dormant") }),
            false => Ok(Self::of(listing)),
        }
    }

    /// Reads the table; first wakes a dormant one (which nft 1.0.6 may not list at all).
    pub(super) fn read_awake(table: &str) -> Result<Self, Error> {
        Self::read(table).or_else(|_| {
            nft::run(&format!("add table inet {table}\n"))?;
            Self::read(table)
        })
    }

    fn of(listing: Listing) -> Self {
        let mut have = Self { there: true, ..Self::default() };
        for item in listing.nftables {
            if let Some(Chain { name, hook, policy }) = item.chain {
                // A chain whose policy is drop is not one that we made.
                let hook = hook.map(|hook| match policy.as_deref() {
                    None | Some("accept") => hook,
                    Some(policy) => format!("{hook} {policy}"),
                });
                have.chains.entry(name).or_default().0 = hook;
            }
            if let Some(rule) = item.rule {
                let chain = have.chains.entry(rule.chain).or_default();
                chain.1.push(rule.comment.unwrap_or_default());
            }
            for set in item.set.into_iter().chain(item.map) {
                have.sets.insert(set.name, set.elem.iter().map(element).collect());
            }
        }
        have
    }
}

/// As we write it: `10.47.0.1 . tcp . 80 : goto s_1`.
fn element(element: &Value) -> String {
    let [key, verdict] = element.as_array().map_or(&[][..], Vec::as_slice) else { return key(element) };
    let target = verdict["goto"]["target"].as_str().unwrap_or_default();
    format!("{} : goto {target}", self::key(key))
}

fn key(key: &Value) -> String {
    let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
    match key["concat"].as_array() {
        Some(parts) => parts.iter().map(part).collect::<Vec<_>>().join(" . "),
        None => part(key),
    }
}
