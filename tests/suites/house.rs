//! The house's own rules, where a compiler does not keep them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use selvedge_tests::circles::Imports;
use selvedge_tests::shell::run;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// Who may use whom (design, section 8). Edges other than these are refused.
fn allowed() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let all = [
        "selvedge-proxy",
        "selvedge-registry",
        "selvedge-cluster",
        "selvedge-containers",
        "selvedge-custody",
        "selvedge-datapath",
        "selvedge-dns",
        "selvedge-engine",
        "selvedge-netsetup",
        "selvedge-keeper",
    ];
    BTreeMap::from([
        ("selvedge-registry", BTreeSet::new()),
        ("selvedge-cluster", BTreeSet::from(["selvedge-registry"])),
        (
            "selvedge-containers",
            BTreeSet::from([
                "selvedge-datapath",
                "selvedge-engine",
                "selvedge-netsetup",
                "selvedge-registry",
            ]),
        ),
        ("selvedge-datapath", BTreeSet::from(["selvedge-cluster", "selvedge-netsetup", "selvedge-registry"])),
        ("selvedge-dns", BTreeSet::from(["selvedge-registry"])),
        ("selvedge-custody", BTreeSet::new()),
        ("selvedge-engine", BTreeSet::from(["selvedge-custody"])),
        ("selvedge-netsetup", BTreeSet::new()),
        ("selvedge-keeper", BTreeSet::new()),
        ("selvedge-model", BTreeSet::new()),
        (
            "selvedge-fake",
            BTreeSet::from([
                "selvedge-cluster",
                "selvedge-containers",
                "selvedge-custody",
                "selvedge-datapath",
                "selvedge-engine",
                "selvedge-keeper",
                "selvedge-netsetup",
                "selvedge-registry",
            ]),
        ),
        ("selvedge-wait", BTreeSet::new()),
        (
            "selvedge-proxy",
            BTreeSet::from([
                "selvedge-containers",
                "selvedge-custody",
                "selvedge-datapath",
                "selvedge-dns",
                "selvedge-engine",
                "selvedge-keeper",
                "selvedge-registry",
            ]),
        ),
        ("selvedge", BTreeSet::from(all)),
        // The harness measures crates by themselves, too.
        ("selvedge-tests", BTreeSet::from(all)),
    ])
}

#[test]
fn crates_use_only_whom_they_may() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(run(&mut cargo, b"").ok()).expect("cargo answers JSON");
    let allowed = allowed();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), allowed.len(), "a crate was added: say here whom it may use");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let may = allowed.get(name).unwrap_or_else(|| panic!("{name}: say here whom it may use"));
        let uses = package["dependencies"].as_array().expect("dependencies").iter();
        // Tests of any crate may stand among fakes.
        let is_fake = |used: &&Value| used["kind"] == "dev" && used["name"] == "selvedge-fake";
        let uses = uses
            .filter(|used| !is_fake(used))
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|name| name.starts_with("selvedge-"));
        for used in uses {
            assert!(may.contains(used), "{name} may not use {used}");
        }
    }
}

#[test]
fn wait_uses_nothing_but_rustix() {
    let manifest = std::fs::read_to_string(root().join("wait/Cargo.toml")).expect("wait/Cargo.toml");
    let used: Vec<&str> = manifest
        .lines()
        .skip_while(|line| *line != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split([' ', '.', '=']).next())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(used, ["rustix"]);
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    assert!(files.len() > 50, "the sources were not found");
    let silent: Vec<_> = files
        .iter()
        .filter(|path| !std::fs::read_to_string(path).is_ok_and(|text| text.starts_with("//! ")))
        .collect();
    assert!(silent.is_empty(), "these do not: {silent:?}");
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    let mut files = Vec::new();
    sources(&root(), &mut files);
    let empty = ["utils", "util", "helpers", "common", "types", "misc", "mod"];
    let named: Vec<_> = files
        .iter()
        .filter(|path| path.file_stem().is_some_and(|stem| empty.contains(&&*stem.to_string_lossy())))
        .collect();
    assert!(named.is_empty(), "{named:?}");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let mut found = BTreeSet::new();
    for dir in std::fs::read_dir(root()).expect("the workspace").flatten().map(|entry| entry.path()) {
        if dir.join("Cargo.toml").exists() && dir.join("src").exists() {
            let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
            let circles = Imports::read(&dir.join("src")).circles();
            found.extend(circles.iter().map(|files| format!("{name}: {}", files.join(" "))));
        }
    }
    assert!(
        found.is_empty(),
        "these files use each other in a circle, and can only be read and tested together:\n{}",
        Vec::from_iter(found).join("\n")
    );
}

#[test]
fn one_file_writes_the_table_of_names() {
    let mut files = Vec::new();
    for dir in std::fs::read_dir(root()).expect("the workspace").flatten().map(|entry| entry.path()) {
        if dir.join("src").exists() && !dir.ends_with("registry") {
            sources(&dir.join("src"), &mut files);
        }
    }
    // Tests, and a benchmark, have tables of their own.
    let is_product = |path: &Path| !path.starts_with(root().join("tests")) && !path.ends_with("tests.rs");
    let can_write = |path: &&PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        is_product(path) && text.split("#[cfg(test)]").next().is_some_and(|text| text.contains("TableWriter"))
    };
    let writers: Vec<_> = files.iter().filter(can_write).collect();
    // The compiler keeps the rest: who has no writer can only look names up, and there is one writer of a table.
    assert_eq!(writers, [&root().join("datapath/src/directory.rs")], "rules come before names, in one place");
}
