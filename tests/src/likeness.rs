//! Two outcomes of one request, compared as a client would: status, interim answers, head fields with their values,
//! the shape of a body, the words of an error, and the connection.
//!
//! Must never compare what differs between any two moments: dates, ids, and numbers of the moment.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::compare::normalised;
use crate::exchange::{After, Outcome};

/// What differs, a line each; `closes` says that one side may end its connection where the other keeps it.
#[must_use]
pub fn differences(direct: &Outcome, through: &Outcome, closes: bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |what: &str, direct: String, through: String| {
        if direct != through {
            found.push(format!("{what}: {}", apart(&direct, &through)));
        }
    };
    note("interim", format!("{:?}", direct.interim), format!("{:?}", through.interim));
    note("status line", direct.line.clone(), through.line.clone());
    // What goes on for ever is never the same at two moments.
    if direct.after != After::Open && through.after != After::Open {
        note("body", body(direct, true), body(through, false));
    }
    for name in names(direct, through) {
        if !(closes && is_of_the_connection(name)) {
            note(name, value(direct, name), value(through, name));
        }
    }
    let ended = |after| matches!(after, After::Kept | After::Open | After::Closed);
    if !(closes && ended(direct.after) && ended(through.after)) {
        note("connection", format!("{:?}", direct.after), format!("{:?}", through.after));
    }
    found
}

/// Both texts, from a little before the place where they part.
fn apart(direct: &str, through: &str) -> String {
    let same = direct.bytes().zip(through.bytes()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| {
        let bytes = &text.as_bytes()[same.saturating_sub(60).min(text.len())..];
        String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
    };
    format!("{} | {}", part(direct), part(through))
}

fn names<'a>(direct: &'a Outcome, through: &'a Outcome) -> BTreeSet<&'a str> {
    direct.fields.keys().chain(through.fields.keys()).map(String::as_str).collect()
}

fn is_of_the_connection(name: &str) -> bool {
    matches!(name, "connection" | "transfer-encoding" | "content-length" | "keep-alive")
}

fn value(outcome: &Outcome, name: &str) -> String {
    let Some(values) = outcome.fields.get(name) else { return "absent".to_owned() };
    // An answer's length depends on its addresses and times; those of errors do not.
    let varies = name == "date" || (name == "content-length" && outcome.status < 300);
    if varies { "present".to_owned() } else { normalised(&format!("{values:?}")) }
}

/// The engine's own list shows our labels, on the containers of the other side.
fn body(outcome: &Outcome, without_ours: bool) -> String {
    if outcome.body.contains(&0) {
        return "binary".to_owned();
    }
    let text = String::from_utf8_lossy(&outcome.body);
    match serde_json::from_str::<Value>(&text) {
        Ok(mut value) if outcome.status < 400 => {
            if without_ours {
                take_out_ours(&mut value);
            }
            shape(&value)
        }
        _ => normalised(&text),
    }
}

fn take_out_ours(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(take_out_ours),
        Value::Object(map) => {
            map.retain(|key, _| !key.starts_with("selvedge.internal."));
            map.values_mut().for_each(take_out_ours);
        }
        _ => {}
    }
}

/// Kinds instead of values. Of the objects in a list only the keys count: others come and go meanwhile.
fn shape(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(list) => {
            let members: BTreeSet<String> = list.iter().flat_map(members).collect();
            format!("[{}]", Vec::from_iter(members).join(","))
        }
        Value::Object(map) => {
            let fields: BTreeMap<String, String> =
                map.iter().map(|(key, value)| (normalised(key), shape(value))).collect();
            let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", fields.join(","))
        }
    }
}

fn members(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map.keys().cloned().collect(),
        other => vec![shape(other)],
    }
}
