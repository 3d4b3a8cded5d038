//! A table of requests, each sent to the engine directly and through Selvedge: a client must not be able to tell which
//! was which. What differs on purpose says so in the table, with a reason that `docs/guide.md` lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use selvedge_tests::engine::Engine;
use selvedge_tests::exchange::{Outcome, exchange};
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::likeness::differences;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::table::{Row, Section, read};
use serde_json::Value;

const TABLES: [(&str, &str); 6] = [
    ("framing.txt", include_str!("../tables/framing.txt")),
    ("paths.txt", include_str!("../tables/paths.txt")),
    ("containers.txt", include_str!("../tables/containers.txt")),
    ("create.txt", include_str!("../tables/create.txt")),
    ("upgrades.txt", include_str!("../tables/upgrades.txt")),
    ("others.txt", include_str!("../tables/others.txt")),
];

fn table() -> Vec<Section> {
    TABLES.iter().flat_map(|(file, text)| read(file, text)).collect()
}

/// One of the two ways to the engine, with objects of its own for each section.
struct Side<'a> {
    socket: &'a Path,
    /// `d` or `t`: ends the names of its objects.
    mark: &'static str,
    section: &'a str,
    made: BTreeSet<String>,
    fresh: usize,
}

impl Side<'_> {
    /// The name of an object, made when it is first spoken of.
    fn object(&mut self, word: &str) -> String {
        match word {
            "new" => self.unique("new"),
            "fresh" => {
                let name = self.unique("fresh");
                self.create(&name, SLEEP);
                name
            }
            "live" => {
                let name = self.unique("live");
                self.create(&name, SLEEP);
                self.ask("POST", &format!("/containers/{name}/start"), "");
                name
            }
            "exec" => {
                let run = self.object("run");
                let answer = self.ask("POST", &format!("/containers/{run}/exec"), r#"{"Cmd":["true"]}"#);
                answer["Id"].as_str().unwrap_or_default().to_owned()
            }
            "id" => {
                let run = self.object("run");
                let answer = self.ask("GET", &format!("/containers/{run}/json"), "");
                answer["Id"].as_str().unwrap_or_default().to_owned()
            }
            _ => self.lasting(word),
        }
    }

    fn unique(&mut self, word: &str) -> String {
        self.fresh += 1;
        format!("{}-{word}{}-{}", self.section, self.fresh, self.mark)
    }

    fn lasting(&mut self, word: &str) -> String {
        let name = format!("{}-{word}-{}", self.section, self.mark);
        if self.made.insert(word.to_owned()) {
            match word {
                "run" => {
                    self.create(&name, SLEEP);
                    self.ask("POST", &format!("/containers/{name}/start"), "");
                }
                "made" => self.create(&name, SLEEP),
                "ended" => {
                    self.create(&name, r#"{"Image":"busybox","Cmd":["echo","said"]}"#);
                    self.ask("POST", &format!("/containers/{name}/start"), "");
                    self.ask("POST", &format!("/containers/{name}/wait"), "");
                }
                "net" => drop(self.ask("POST", "/networks/create", &format!(r#"{{"Name":{name:?}}}"#))),
                "vol" => drop(self.ask("POST", "/volumes/create", &format!(r#"{{"Name":{name:?}}}"#))),
                "image" => drop(self.ask("POST", &format!("/images/busybox/tag?repo={name}"), "")),
                "gone" => {}
                _ => panic!("<{word}> is no object of a table"),
            }
        }
        name
    }

    fn create(&mut self, name: &str, body: &str) {
        let answer = self.ask("POST", &format!("/containers/create?name={name}"), body);
        assert!(answer["Id"].is_string(), "{name} cannot be made: {answer}");
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = match method {
            "GET" => http::get(self.socket, path),
            _ => http::post(self.socket, path, body),
        };
        serde_json::from_str(&answer.expect("an answer").text()).unwrap_or_default()
    }

    fn send(&mut self, row: &Row) -> Outcome {
        let mut names = Vec::new();
        let (head, body) = row.bytes(&mut |word| {
            let name = self.object(word);
            names.push((name.clone(), format!("<{word}>")));
            name
        });
        let mut outcome = exchange(self.socket, (&head, &body), row.waits());
        names.extend(
            self.made
                .iter()
                .map(|word| (format!("{}-{word}-{}", self.section, self.mark), format!("<{word}>"))),
        );
        outcome.replace(&names);
        outcome
    }
}

const SLEEP: &str = r#"{"Image":"busybox","Cmd":["sleep","1000"],"StopSignal":"KILL"}"#;

/// Runs a section on both sides at the same time.
fn run(section: &Section, [direct, through]: [&Path; 2], api: u32, found: &Mutex<Vec<String>>) {
    let side = |socket, mark| Side { socket, mark, section: &section.name, made: BTreeSet::new(), fresh: 0 };
    let (mut direct, mut through) = (side(direct, "d"), side(through, "t"));
    for row in section.rows.iter().filter(|row| row.engines.has(api)) {
        let (plain, ours) = std::thread::scope(|scope| {
            let ours = scope.spawn(|| through.send(row));
            (direct.send(row), ours.join().expect("the thread ends"))
        });
        let differ = differences(&plain, &ours, row.differs.as_deref() == Some("closes"));
        let told = match row.differs.as_deref() {
            None | Some("closes") if differ.is_empty() => continue,
            None | Some("closes") => differ.join("\n    "),
            Some(_) if differ.is_empty() => "says that it differs, and does not".to_owned(),
            Some(_) => continue,
        };
        found.lock().expect("no thread panics").push(format!("{}: {}\n    {told}", row.place, row.text));
    }
}

/// Go's server buffers as many bytes of an answer; one that ends within them has a `Content-Length`, others come in chunks
/// (net/http, `bufferBeforeChunkingSize`).
const LENGTH_TOLD: usize = 2048;

/// How many sections run at the same time: more would only wait for the engine.
const AT_ONCE: usize = 4;

/// Runs the whole table.
fn compare(engine: &Engine, selvedge: &Selvedge) {
    let api = api(&engine.socket);
    // So that no list is ever empty, nor grows past the length up to which Go says how long it is, while both sides ask.
    let long = format!("long={}", "x".repeat(LENGTH_TOLD));
    engine.docker().start(&["--name", "always", "--label", &long, "busybox", "sleep", "1000"]);
    let sockets: [PathBuf; 2] = [engine.socket.clone(), selvedge.socket()];
    let (found, sections) = (Mutex::new(Vec::new()), table());
    let next = AtomicUsize::new(0);
    let all = || {
        while let Some(section) = sections.get(next.fetch_add(1, Relaxed)) {
            run(section, [&sockets[0], &sockets[1]], api, &found);
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(all))));
    let mut found = found.into_inner().expect("no thread panics");
    found.sort();
    assert!(found.is_empty(), "{} rows differ (directly | through):\n{}", found.len(), found.join("\n"));
}

fn api(engine: &Path) -> u32 {
    let answer = http::get(engine, "/version").expect("an answer");
    let version: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let api = version["ApiVersion"].as_str().unwrap_or_default();
    api.strip_prefix("1.").and_then(|minor| minor.parse().ok()).expect("1.N")
}

#[test]
fn behind_the_machines_engine() {
    let host = Host::new();
    let engine = Engine::debian(&host, &["--experimental=false"]);
    compare(&engine, &Selvedge::start(&host, &engine, &[]));
}

#[test]
fn behind_the_engine_of_trixie() {
    let host = Host::new();
    let engine = Engine::trixie(&host, &[]);
    compare(&engine, &Selvedge::start(&host, &engine, &[]));
}

#[test]
fn behind_the_engine_of_sid_with_the_containerd_store() {
    let host = Host::new();
    let engine = Engine::sid(&host, &[]);
    compare(&engine, &Selvedge::start(&host, &engine, &[]));
}

#[test]
fn the_table_is_long_and_its_reasons_are_in_the_guide() {
    let table = table();
    let rows: Vec<&Row> = table.iter().flat_map(|section| &section.rows).collect();
    assert!(rows.len() >= 600, "{} rows", rows.len());
    let names: BTreeSet<&str> = table.iter().map(|section| section.name.as_str()).collect();
    assert_eq!(names.len(), table.len(), "two sections of one name");
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide.md");
    let guide = std::fs::read_to_string(guide).expect("the guide");
    for reason in rows.iter().filter_map(|row| row.differs.as_deref()).collect::<BTreeSet<_>>() {
        assert!(guide.contains(&format!("| `{reason}` |")), "docs/guide.md does not list {reason:?}");
    }
}
