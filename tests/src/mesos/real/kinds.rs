//! The kinds of tasks that are told the same directly and through Selvedge, and what differs on purpose.
//!
//! It must never list a difference without its reason.

use serde_json::{Value, json};

use super::app::{App, Program};
use super::story::Story;

/// One kind.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The app, whose last part of the path is the kind's name.
    pub app: App,
    /// How it comes to its end.
    pub end: End,
}

/// How a task comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself.
    Own,
    /// By itself, once it is told to run and the file that it waits for is there.
    Told,
    /// It is killed once it is told to run.
    KilledRunning,
    /// It is killed once it is told to be healthy.
    KilledHealthy,
}

/// An update of one kind of tasks that is another one through Selvedge.
#[derive(Debug)]
struct Difference {
    kind: &'static str,
    direct: &'static str,
    through: &'static str,
    #[expect(dead_code, reason = "for those who read it")]
    why: &'static str,
}

const DIFFERENCES: &[Difference] = &[Difference {
    kind: "none",
    direct: r#"TASK_RUNNING by SOURCE_EXECUTOR, reason -, message "-", healthy -, 1 address(es): the agent's"#,
    through: r#"TASK_RUNNING by SOURCE_EXECUTOR, reason -, message "-", healthy -, 1 address(es): its own"#,
    why: "a container in the mode `none` has a wire, and so an address of its own",
}];

/// Kinds that end so soon that chance decides whether an inspect still shows their address, with and without Selvedge.
const AT_ONCE: &[&str] = &["of-image", "fails-at-once"];

impl Kind {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.app.id.trim_start_matches("/trial/")
    }

    /// Whether its container has a wire.
    #[must_use]
    pub fn has_wire(&self) -> bool {
        matches!(self.app.network, "BRIDGE" | "NONE")
    }

    /// Both stories, unless they are alike but for what differs on purpose.
    ///
    /// # Panics
    /// When there is nothing to compare.
    #[must_use]
    pub fn difference(&self, direct: Story, through: Story) -> Option<String> {
        assert!(
            direct.updates.len() > 1 || self.name() == "no-image",
            "{}: nothing to compare: {direct:?}",
            self.name()
        );
        let (mut direct, mut through) = (direct, through);
        if AT_ONCE.contains(&self.name()) {
            direct.forget_addresses();
            through.forget_addresses();
        }
        for one in DIFFERENCES.iter().filter(|one| one.kind == self.name()) {
            direct.replace(one.direct, one.through);
        }
        (direct != through).then(|| {
            format!(
                "{}\n--- directly\n{}--- through Selvedge\n{}",
                self.name(),
                direct.lines(),
                through.lines()
            )
        })
    }
}

/// A line that ends as soon as the task has been told to run.
macro_rules! told {
    ($line:literal) => {
        concat!($line, "; until [ -e /mnt/mesos/sandbox/end ]; do sleep 0.1; done")
    };
}

const BRIEF: &str = told!("echo $MARATHON_APP_ID $PORTS");
const ENDLESS: &str = "trap 'echo ended; exit 0' TERM; while :; do sleep 0.1; done";
const SERVER: &str =
    "trap 'exit 0' TERM; echo well >/tmp/well; httpd -p 8080 -h /tmp; while :; do sleep 0.1; done";

/// All kinds.
#[must_use]
pub fn all() -> Vec<Kind> {
    [networks(), programs(), options(), checks(), kills()].concat()
}

fn kind(name: &str, program: Program) -> App {
    App::new(&format!("/trial/{name}"), program)
}

fn own(app: App) -> Kind {
    Kind { app, end: End::Own }
}

fn told(app: App) -> Kind {
    Kind { app, end: End::Told }
}

fn networks() -> Vec<Kind> {
    let on = |name, network| told(App { network, ..kind(name, Program::Shell(BRIEF)) });
    vec![on("bridge", "BRIDGE"), on("host", "HOST"), on("none", "NONE"), on("user", "mesh")]
}

fn programs() -> Vec<Kind> {
    let arguments = &["sh", "-c", told!("echo \"$0\" \"$1\""), "a b", "$c \"d\""];
    vec![
        own(kind("of-image", Program::OfImage)),
        told(kind("arguments", Program::Arguments(arguments))),
        told(kind("fails", Program::Shell(concat!(told!("echo fails >&2"), "; exit 3")))),
        own(kind("fails-at-once", Program::Shell("exit 4"))),
        own(kind("no-program", Program::Arguments(&["/no/such/program"]))),
        own(kind("no-permission", Program::Arguments(&["/etc/passwd"]))),
        own(App { image: "no/such-image", ..kind("no-image", Program::Shell(BRIEF)) }),
        own(App { parameters: &[("no-such-option", "1")], ..kind("no-option", Program::Shell(BRIEF)) }),
    ]
}

fn options() -> Vec<Kind> {
    let set = "hostname; id -u; pwd; grep other /etc/hosts; ulimit -n; touch /x; trap 'exit 0' TERM; while :; do sleep 0.1; done";
    vec![
        told(App {
            env: &[
                ("ODD_EMPTY", ""),
                ("ODD_BLANK", " a  b "),
                ("ODD_QUOTES", "\"a\" 'b' \\c $d"),
                ("ODD_LINES", "a\nb ODD"),
            ],
            ..kind("environment", Program::Shell(told!("env | grep ODD | sort")))
        }),
        told(App {
            labels: &[
                ("HAPROXY_GROUP", "external"),
                ("traefik.frontend.rule", "Host: a.b"),
                ("blank", "a b"),
            ],
            ..kind("labels", Program::Shell(told!("env | grep LABEL | sort")))
        }),
        // As another user it cannot see its sandbox.
        Kind {
            end: End::KilledRunning,
            app: App { parameters: PARAMETERS, ..kind("parameters", Program::Shell(set)) },
        },
        told(App { ports: &[8080, 9090], ..kind("ports", Program::Shell(told!("echo $PORT0 $PORT1"))) }),
        told(App {
            volume: Some(("/usr/share/zoneinfo", "/zones")),
            ..kind("volume", Program::Shell(told!("ls /zones/Zulu; touch /zones/x")))
        }),
    ]
}

const PARAMETERS: &[(&str, &str)] = &[
    ("hostname", "db-1"),
    ("user", "65534"),
    ("workdir", "/tmp"),
    ("add-host", "other:10.1.2.3"),
    ("ulimit", "nofile=99:99"),
    ("label", "a=b c"),
    ("read-only", "true"),
];

fn checks() -> Vec<Kind> {
    let command = |line: &str| check(&json!({"type": "COMMAND", "command": {"shell": true, "value": line}}));
    let http =
        |path: &str| check(&json!({"type": "HTTP", "http": {"port": 8080, "path": path, "scheme": "http"}}));
    let checked = |name, program, health, end| {
        let app = App { health: Some(health), ..kind(name, Program::Shell(program)) };
        Kind { app, end }
    };
    vec![
        checked("healthy-command", ENDLESS, command("test -d /mnt/mesos/sandbox"), End::KilledHealthy),
        checked("unhealthy-command", ENDLESS, command("exit 1"), End::Own),
        checked("healthy-http", SERVER, http("/well"), End::KilledHealthy),
        checked("unhealthy-http", SERVER, http("/ill"), End::Own),
    ]
}

fn check(what: &Value) -> Value {
    let mut check = json!({"delay_seconds": 1.0, "interval_seconds": 1.0, "timeout_seconds": 10.0,
        "grace_period_seconds": 0.0, "consecutive_failures": 2});
    for (name, value) in what.as_object().into_iter().flatten() {
        check[name] = value.clone();
    }
    check
}

fn kills() -> Vec<Kind> {
    let killed = |app| Kind { app, end: End::KilledRunning };
    vec![
        killed(App { grace: Some(10), ..kind("killed", Program::Shell(ENDLESS)) }),
        killed(App { grace: Some(1), ..kind("killed-hard", Program::Shell("trap '' TERM; sleep 1000")) }),
    ]
}
