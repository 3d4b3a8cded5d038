//! Holds the hosts, and does to them what it is told, line by line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use anyhow::Context;
use selvedge_tests::fleet::store::Store;
use selvedge_tests::fleet::{Fleet, Plan, StoreKind};

use crate::{Place, StoreChoice, Up, control, dir, hosts_file};

/// Makes the hosts, and obeys until it is told to end.
pub(crate) fn run(up: &Up) -> anyhow::Result<()> {
    let _gone = RemoveAtEnd;
    let fleet = Fleet::new(&Plan {
        hosts: up.hosts.into(),
        links: up.links.into(),
        store: match up.store {
            StoreChoice::Zookeeper => Some(StoreKind::Zookeeper),
            StoreChoice::Etcd => Some(StoreKind::Etcd),
            StoreChoice::None => None,
        },
        options: up.options.clone(),
        underlay6: up.underlay6,
        ..Plan::default()
    });
    write_places(&fleet)?;
    let _ = std::fs::remove_file(control());
    let listener = UnixListener::bind(control()).context("cannot listen")?;
    for stream in listener.incoming().flatten() {
        if !obey(&fleet, &stream) {
            break;
        }
    }
    Ok(())
}

/// The directory goes last: `lab down` waits for that.
struct RemoveAtEnd;

impl Drop for RemoveAtEnd {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(dir());
    }
}

fn write_places(fleet: &Fleet) -> anyhow::Result<()> {
    let place = |member: &selvedge_tests::fleet::Member| Place {
        name: member.name.clone(),
        netns: member.host.netns.clone(),
        address: member.address.clone(),
        socket: member.selvedge.socket(),
        runtime: member.selvedge.socket().parent().map_or_else(PathBuf::new, PathBuf::from),
    };
    let places: Vec<Place> = fleet.members.iter().map(place).collect();
    Ok(std::fs::write(hosts_file(), serde_json::to_string_pretty(&places)?)?)
}

/// One line, one answer; false when it was the last.
fn obey(fleet: &Fleet, stream: &UnixStream) -> bool {
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line).is_err() || line.trim().is_empty() {
        return true;
    }
    let mut out = stream;
    if line.trim() == "down" {
        let _ = writeln!(out, "the lab is taken away");
        return false;
    }
    if let Err(refusal) = do_it(fleet, line.trim()) {
        let _ = writeln!(out, "! {refusal}");
    }
    true
}

fn do_it(fleet: &Fleet, line: &str) -> Result<(), String> {
    let mut words = line.split(' ');
    let verb = words.next().unwrap_or_default();
    let numbers: Vec<usize> = words.filter_map(|word| word.parse().ok()).collect();
    let host = |place: usize| {
        let number = numbers.get(place).copied().unwrap_or(0);
        number
            .checked_sub(1)
            .filter(|index| *index < fleet.members.len())
            .ok_or(format!("there is no host {number}"))
    };
    match verb {
        "cut" => fleet.cut(host(0)?, host(1)?),
        "cut-store" => fleet.cut_from_store(host(0)?),
        "heal" => fleet.heal(),
        "kill" => fleet.kill(host(0)?),
        "store-kill" => store(fleet)?.kill(member(fleet, &numbers)?),
        "store-start" => store(fleet)?.start_again(member(fleet, &numbers)?),
        "store-empty" => store(fleet)?.empty(),
        _ => return Err(format!("what is {verb}?")),
    }
    Ok(())
}

fn store(fleet: &Fleet) -> Result<&Store, String> {
    fleet.store.as_ref().ok_or_else(|| "this lab has no registry".to_owned())
}

fn member(fleet: &Fleet, numbers: &[usize]) -> Result<usize, String> {
    let number = numbers.first().copied().unwrap_or(0);
    let count = store(fleet)?.members();
    number
        .checked_sub(1)
        .filter(|index| *index < count)
        .ok_or(format!("the registry has members 1 to {count}"))
}
