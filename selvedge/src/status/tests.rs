//! The status as both sides see it, and its schema.

use std::collections::BTreeSet;

use selvedge_cluster::key::HostInfo;
use selvedge_datapath::status::{PortStatus, Refused, ServiceStatus};
use selvedge_keeper::status::{StreamStatus, WorkerStatus as KeptWorker};
use serde_json::Value;

use super::*;
use crate::checks::Mark;

/// A status in which no list is empty and nothing is missing.
fn filled() -> Status {
    let mut status = Status {
        version: "1".to_owned(),
        troubles: vec![Trouble::default()],
        keeper: Some(Snapshot {
            listeners: vec!["api".to_owned()],
            workers: vec![KeptWorker::default()],
            streams: vec![StreamStatus::default()],
            ..Snapshot::default()
        }),
        listen: vec!["/run/selvedge/docker.sock".into()],
        pool: Some("10.32.0.0/12".parse().unwrap()),
        blocks: vec![BlockStatus { block: "10.32.0.0/24".parse().unwrap(), free: 1 }],
        doubles: vec![Double { name: "db".to_owned(), containers: vec!["0123456789ab".to_owned()] }],
        checks: vec![Finding { mark: Mark::Warn, text: "nft is missing".to_owned() }],
        dns: Some(DnsCounts::default()),
        health_from: Some(AgentStatus {
            reason: Some("refused".to_owned()),
            heard_seconds: Some(7),
            ..AgentStatus::default()
        }),
        network: NetworkStatus {
            routes: Some("refused".to_owned()),
            firewalls: Some("refused".to_owned()),
            host: vec!["a route".to_owned()],
            addresses: vec!["a container".to_owned()],
        },
        ..Status::default()
    };
    status.engine.late_ms = Some(6000);
    (status.engine.version, status.engine.api) = (Some("28".to_owned()), Some("1.51".to_owned()));
    status.cluster = Some(ClusterStatus {
        connection: Registry::Away("no answer".to_owned()),
        address: Some([10, 0, 0, 1].into()),
        hosts: vec![peer("b", "open")],
        ..ClusterStatus::default()
    });
    status.policy.trouble = Some("refused".to_owned());
    status.policy.refused = vec![Refused {
        protocol: Some("tcp".to_owned()),
        port: Some(80),
        rule: Some("selvedge.allow".to_owned()),
        ..Refused::default()
    }];
    status.vips.trouble = Some("refused".to_owned());
    status.vips.waiting = vec!["db".to_owned()];
    status.vips.services = vec![ServiceStatus {
        tenant: Some("shop".to_owned()),
        address: Some([10, 47, 0, 1].into()),
        ports: vec![PortStatus { port: "80/tcp".to_owned(), backends: vec!["10.32.0.1:80".to_owned()] }],
        ..ServiceStatus::default()
    }];
    status
}

fn peer(name: &str, policy: &str) -> PeerView {
    PeerView {
        name: name.to_owned(),
        info: Some(HostInfo {
            address: [10, 0, 0, 2].into(),
            port: 6785,
            version: "1".to_owned(),
            datapath: "auto".to_owned(),
            policy: policy.to_owned(),
            heeds_stops: true,
        }),
        registered: true,
        alive: true,
        blocks: vec!["10.33.0.0/24".parse().unwrap()],
        strays: vec![[10, 40, 0, 1].into()],
        containers: 1,
    }
}

/// The paths of all fields: `blocks[].free`.
fn of_json(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            let path = format!("{path}.{name}");
            of_json(value, &path, found);
            found.insert(path);
        }),
        Value::Array(list) => list.iter().for_each(|value| of_json(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

fn of_schema(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        of_schema(schema, &path, found);
        assert!(schema["description"].is_string(), "{path} has no description");
        found.insert(path);
    }
    if schema["items"].is_object() {
        of_schema(&schema["items"], &format!("{path}[]"), found);
    }
}

#[test]
fn the_schema_in_the_docs_has_every_field_and_no_other() {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/status.schema.json")).unwrap();
    let (mut described, mut said) = (BTreeSet::new(), BTreeSet::new());
    of_schema(&schema, "", &mut described);
    of_json(&serde_json::to_value(filled()).unwrap(), "", &mut said);
    assert_eq!(described, said);
}

#[test]
fn what_one_side_writes_the_other_one_reads() {
    let written = serde_json::to_value(filled()).unwrap();
    let read: Status = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), written);
}

#[test]
fn a_status_of_another_release_is_read_as_far_as_it_is_known() {
    let other =
        r#"{"version":"0.9","later":{"a":1},"policy":{"mode":"open"},"engine":{"up":true,"of tomorrow":[]}}"#;
    let read: Status = serde_json::from_str(other).unwrap();
    assert_eq!((read.version.as_str(), read.policy.mode.as_str(), read.engine.up), ("0.9", "open", true));
}

#[test]
fn hosts_with_another_policy_are_a_warning() {
    let mut status = Status::default();
    status.policy.mode = "tenant".to_owned();
    let hosts = vec![peer("a", "tenant"), peer("b", "open"), peer("early", "")];
    status.cluster = Some(ClusterStatus { hosts, ..ClusterStatus::default() });
    let text = text::text(&status);
    let warnings: Vec<&str> = text.lines().filter(|line| line.starts_with("WARNING")).collect();
    assert_eq!(warnings, ["WARNING   b has --policy open; all hosts must have the same"]);
}
