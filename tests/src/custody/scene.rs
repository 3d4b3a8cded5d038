//! What the operations happen on: a lab, a directory in which programs leave a line each time they run, and the engine's own
//! word on what was done.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::chance::Chance;
use super::raw::Raw;
use super::registry::Registry;
use super::tally::{Trouble, Verdict};
use crate::Lab;
use crate::docker::{Docker, NEWER};
use crate::engine::Engine;
use crate::host::Host;
use crate::selvedge::Selvedge;

/// A program that was started says so by then, also on a machine under load.
const MARKED: Duration = Duration::from_secs(30);

/// A lab under kills.
#[derive(Debug)]
pub struct Scene {
    /// Its host, engine and Selvedge.
    pub lab: Lab,
    /// CLIs that talk to Selvedge.
    pub clis: Vec<Docker>,
    /// Where images are pulled from.
    pub registry: Registry,
    /// The container that everything may look at.
    pub standing: String,
    next: AtomicUsize,
    marks: PathBuf,
}

impl Scene {
    /// Debian's engine.
    #[must_use]
    pub fn debian() -> Self {
        let host = Host::new();
        let engine = Engine::debian(&host, &[]);
        Self::of(host, engine)
    }

    /// Trixie's engine.
    #[must_use]
    pub fn trixie() -> Self {
        let host = Host::new();
        let engine = Engine::trixie(&host, &[]);
        Self::of(host, engine)
    }

    fn of(host: Host, engine: Engine) -> Self {
        let selvedge = Selvedge::start(&host, &engine, &[]);
        let mut clis = vec![engine.docker_at(&selvedge.socket())];
        if std::path::Path::new(NEWER).exists() {
            clis.push(Docker::new(&selvedge.socket()).with_program(NEWER));
        }
        let marks = host.path("marks");
        std::fs::create_dir_all(&marks).expect("a directory can be made");
        let standing = clis[0].start(&["--name", "standing", "busybox", "sleep", "100000"]);
        clis[0].run(&["network", "create", "side"]).ok();
        let (lab, registry) = (Lab { selvedge, engine, host }, Registry::default());
        Self { lab, clis, registry, standing, next: AtomicUsize::new(0), marks }
    }

    /// A name that no other operation has.
    pub fn name(&self) -> String {
        format!("op{}", self.next.fetch_add(1, Relaxed))
    }

    /// A client by hand, which keeps its connection or does not.
    #[must_use]
    pub fn raw(&self, chance: &mut Chance) -> Raw {
        Raw::new(&self.lab.socket(), chance.coin())
    }

    /// One of the CLIs.
    #[must_use]
    pub fn cli(&self, chance: &mut Chance) -> &Docker {
        &self.clis[chance.below(self.clis.len())]
    }

    /// Where containers leave their marks, for a bind mount.
    #[must_use]
    pub fn bind(&self) -> String {
        format!("{}:/marks", self.marks.display())
    }

    /// A shell command that leaves a mark.
    #[must_use]
    pub fn mark(name: &str) -> String {
        format!("echo x >> /marks/{name}")
    }

    /// The body of a create whose program leaves a mark and then does this.
    #[must_use]
    pub fn body(&self, name: &str, then: &str) -> Value {
        json!({
            "Image": "busybox",
            "Cmd": ["sh", "-c", format!("{}; {then}", Self::mark(name))],
            "Labels": {"custody": name},
            "HostConfig": {"Binds": [self.bind()]},
        })
    }

    /// How often the program has run must be as expected, now or in a moment: it leaves its mark after the answer to its start.
    ///
    /// # Errors
    /// It is not.
    pub fn marked(&self, name: &str, times: usize) -> Verdict {
        let count = || std::fs::read_to_string(self.marks.join(name)).unwrap_or_default().lines().count();
        let until = Instant::now() + MARKED;
        while count() < times && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = count();
        match found.cmp(&times) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => {
                Err(Trouble::Twice(format!("{name} ran {found} times, not {times}")))
            }
            std::cmp::Ordering::Less => Err(Trouble::Wrong(format!("{name} ran {found} times, not {times}"))),
        }
    }

    /// The engine's own answer.
    ///
    /// # Errors
    /// It does not give one.
    pub fn engine(&self, path: &str) -> Result<Value, Trouble> {
        Ok(Raw::new(&self.lab.engine.socket, false).expect(200, "GET", path, None)?.json())
    }

    /// The containers with this label, as the engine itself lists them.
    ///
    /// # Errors
    /// It does not.
    pub fn labelled(&self, name: &str) -> Result<Vec<Value>, Trouble> {
        let filter = format!("%7B%22label%22%3A%5B%22custody%3D{name}%22%5D%7D");
        let list = self.engine(&format!("/containers/json?all=1&filters={filter}"))?;
        Ok(list.as_array().cloned().unwrap_or_default())
    }

    /// So many containers have the label.
    ///
    /// # Errors
    /// More, or fewer.
    pub fn made(&self, name: &str, count: usize) -> Verdict {
        let found = self.labelled(name)?.len();
        match found.cmp(&count) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => {
                Err(Trouble::Twice(format!("{found} containers of {name}, not {count}")))
            }
            std::cmp::Ordering::Less => {
                Err(Trouble::Wrong(format!("{found} containers of {name}, not {count}")))
            }
        }
    }

    /// What is left on the engine and the host when all is over and removed: none of it should be.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let ours = ["standing"];
        let direct = self.lab.engine.docker();
        let names = direct.run(&["ps", "-a", "--format", "{{.Names}}"]).stdout;
        let mut left: Vec<String> = names
            .lines()
            .filter(|name| !ours.contains(name))
            .map(|name| format!("container {name}"))
            .collect();
        left.extend(names.lines().filter(|name| !ours.contains(name)).map(|name| {
            format!(
                "  {}",
                direct
                    .run(&["inspect", "-f", "{{.State.Status}} {{.Created}} {{.Config.Cmd}}", name])
                    .stdout
                    .trim()
            )
        }));
        let (routes, wires) = (self.lab.host.routes(), self.lab.host.wires());
        if routes.len() != 1 || wires.len() != 1 {
            left.push(format!("routes {routes:?}, wires {wires:?}"));
        }
        left
    }
}

/// What must be equal.
///
/// # Errors
/// It is not.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Verdict {
    match found == expected {
        true => Ok(()),
        false => Err(Trouble::Wrong(format!("{what}: {found:?} instead of {expected:?}"))),
    }
}
