//! A real Mesos 1.11, master and agent, in front of Selvedge: its frameworks are told what they are told without.
//!
//! The executor is a stand-in (`src/bin/mesos-docker-executor`), as Mesos' Python package has none. It speaks the v1 HTTP
//! API, and an agent that recovers skips executors without a libprocess address. So restarts of the agent cannot be shown
//! here; the imitation of `mesos_agent` makes the calls of a recovery.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use selvedge_tests::Lab;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::mesos::real::Mesos;
use selvedge_tests::mesos::real::app::{App, Program};
use selvedge_tests::mesos::real::churn;
use selvedge_tests::mesos::real::framework::{Framework, is_last};
use selvedge_tests::mesos::real::kinds::{self, End, Kind};
use selvedge_tests::mesos::real::story::{AGENT, Story, address};
use selvedge_tests::mesos::scenario::Size;
use selvedge_tests::wait::until_true;

/// One at a time: a churn makes the others wait for longer than a health check may take.
static ALONE: Mutex<()> = Mutex::new(());

/// Generous: what is compared is the order, not the time.
const LIMIT: Duration = Duration::from_secs(60);

fn mesos(host: &Host, socket: &Path) -> Mesos {
    let executor = Path::new(env!("CARGO_BIN_EXE_mesos-docker-executor"));
    Mesos::start(host, socket, executor.parent().expect("a program is in a folder"))
}

#[test]
fn every_kind_of_task_is_told_as_without_us() {
    let _alone = ALONE.lock();
    let kinds = kinds::all();
    let lab = Lab::new();
    let bare = Host::new();
    let engine = Engine::debian(&bare, &[]);
    for docker in [lab.engine.docker(), engine.docker()] {
        docker.run(&["network", "create", "mesh"]).ok();
    }
    let (behind, beside) = (mesos(&lab.host, &lab.socket()), mesos(&bare, &engine.socket));
    let (through, direct) = (behind.framework("marathon"), beside.framework("marathon"));
    let apps: Vec<App> = kinds.iter().map(|kind| kind.app.clone()).collect();
    let (ours, theirs) = (through.launch(&apps), direct.launch(&apps));
    for (kind, (our, their)) in kinds.iter().zip(ours.iter().zip(&theirs)) {
        end(kind, (&behind, &through), our);
        end(kind, (&beside, &direct), their);
    }
    let both = kinds.iter().zip(ours.iter().zip(&theirs));
    let differ: Vec<String> = both
        .filter_map(|(kind, (our, their))| {
            let told = Story::of(&behind, &through, our, &lab.socket());
            let plain = Story::of(&beside, &direct, their, &engine.socket);
            kind.difference(plain, told)
        })
        .collect();
    assert!(differ.is_empty(), "{} of {} kinds differ\n{}", differ.len(), kinds.len(), differ.join("\n"));
    // All addresses of the kinds with a wire are the wire's.
    for (kind, our) in kinds.iter().zip(&ours).filter(|(kind, _)| kind.has_wire()) {
        let updates = through.updates(our);
        let strange = |address: &&str| !address.starts_with("10.32.") && *address != AGENT;
        assert_eq!(updates.iter().filter_map(address).find(strange), None, "{}", kind.name());
    }
    println!("{} kinds of tasks", kinds.len());
}

/// Brings a task to its end.
fn end(kind: &Kind, (mesos, framework): (&Mesos, &Framework), task: &str) {
    let runs = |update: &Value| update["state"] == "TASK_RUNNING" || is_last(update);
    let healthy = |update: &Value| update["healthy"] == true || is_last(update);
    match kind.end {
        End::Own => {}
        End::Told => {
            framework.until(task, "it runs", LIMIT, runs);
            mesos.let_end(task);
        }
        End::KilledRunning => {
            framework.until(task, "it runs", LIMIT, runs);
            framework.kill(task);
        }
        End::KilledHealthy => {
            framework.until(task, "it is healthy", LIMIT, healthy);
            framework.kill(task);
        }
    }
    framework.until(task, "it has ended", LIMIT, is_last);
}

#[test]
fn a_program_that_is_missing_is_never_told_to_run() {
    let _alone = ALONE.lock();
    let lab = Lab::new();
    let mesos = mesos(&lab.host, &lab.socket());
    let framework = mesos.framework("marathon");
    let app = App::new("/trial/no-program", Program::Arguments(&["/no/such/program"]));
    let tasks = framework.launch(&vec![app; 8]);
    for task in &tasks {
        let last = framework.until(task, "it has ended", LIMIT, is_last);
        assert_eq!(last["state"], "TASK_FAILED", "{last}");
        assert_eq!(last["message"], "Container exited with status 127", "{last}");
        let states: Vec<_> = framework.updates(task).iter().map(|update| update["state"].clone()).collect();
        assert_eq!(states, ["TASK_STARTING", "TASK_FAILED"]);
    }
}

#[test]
fn tasks_come_and_go_through_upgrades_kills_and_engine_restarts() {
    let _alone = ALONE.lock();
    let lab = Lab::with_engine(&["--live-restore"]);
    let mesos = mesos(&lab.host, &lab.socket());
    let framework = mesos.framework("marathon");
    let size = Size {
        tasks: 60,
        at_once: 10,
        upgrades: 10,
        kills: 10,
        keepers: 3,
        keeper_kills: 0,
        engines: 2,
        merciless: true,
    };
    let outcome = churn::run(&lab, &mesos, &framework, size);
    let (engines, ours): (Vec<_>, Vec<_>) = outcome.losses.iter().partition(|loss| loss.engines.is_some());
    let (all, restarts) = outcome.struck;
    println!("{} tasks ended; of {all} the launch was under way when something happened", outcome.ended);
    println!("{restarts} of them when the engine was restarted, which lost {}: {engines:#?}", engines.len());
    println!("killed again: {:#?}", outcome.kills_again);
    assert!(outcome.ended >= 60, "{outcome:?}");
    assert!(ours.is_empty(), "{} lost: {ours:#?}", ours.len());
    assert!(outcome.strays.is_empty() && outcome.doubles.is_empty(), "{outcome:#?}");
}

/// Names of Marathon's apps as Mesos-DNS has them, and as labels ask for; and who reaches whom.
#[test]
fn names_and_tenants_follow_from_what_the_agent_runs() {
    let _alone = ALONE.lock();
    let lab = Lab::with_selvedge(&["--dns-style", "mesos", "--policy", "tenant"]);
    let mesos = mesos(&lab.host, &lab.socket());
    let framework = mesos.framework("marathon");
    let server = |id: &str| App::new(id, Program::Shell("httpd -f -p 80 -h /etc"));
    let apps = [
        server("/shop/db"),
        server("/shop/db"),
        App { network: "NONE", ..server("/shop/front/web") },
        App {
            labels: &[("SELVEDGE_NAME", "ledger"), ("SELVEDGE_ALLOW", "tenant:shop 80/tcp")],
            ..server("/bank/books")
        },
        App {
            parameters: &[("label", "selvedge.name=vault"), ("label", "selvedge.tenant=shop")],
            ..server("/bank/vault")
        },
        server("/bank/till"),
    ];
    let tasks = framework.launch(&apps);
    let addresses: Vec<String> = tasks.iter().map(|task| runs(&framework, task)).collect();
    let [one, two, web, books, vault, till] = &addresses[..] else { unreachable!("six apps were launched") };

    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(answered(&lab, "db-shop.marathon.mesos"), both);
    assert_eq!(answered(&lab, "db.shop.selvedge.internal"), both);
    for (name, address) in [
        ("web-front-shop.marathon.mesos", web),
        ("books-bank.marathon.mesos", books),
        ("ledger.selvedge.internal", books),
        ("vault.selvedge.internal", vault),
        ("till-bank.marathon.mesos", till),
    ] {
        assert_eq!(answered(&lab, name), vec![address.clone()], "{name}");
    }

    // The host may call all of them, and a program may take a moment to listen.
    for address in &addresses {
        let page = format!("busybox wget -q -O /dev/null http://{address}/hostname");
        until_true(address, LIMIT, || lab.host.sh(&page).code == 0);
    }
    for (from, to, name, may) in [
        (0, web, "web-front-shop.marathon.mesos", true),
        (2, one, "db-shop.marathon.mesos", true),
        (0, till, "till-bank.marathon.mesos", false),
        (5, one, "db-shop.marathon.mesos", false),
        (2, books, "ledger.selvedge.internal", true),
        (5, vault, "vault.selvedge.internal", false),
        (0, vault, "vault.selvedge.internal", true),
    ] {
        let (task, app) = (&tasks[from], &apps[from].id);
        assert_eq!(fetches(&lab, task, to), may, "{app} to {to}");
        assert_eq!(fetches(&lab, task, name), may, "{app} to {name}");
    }
    tasks.iter().for_each(|task| framework.kill(task));
    tasks.iter().for_each(|task| drop(framework.until(task, "it has ended", LIMIT, is_last)));
    assert!(answered(&lab, "db-shop.marathon.mesos").is_empty());
}

/// The address that the agent tells of a task once it runs.
fn runs(framework: &Framework, task: &str) -> String {
    let update = framework
        .until(task, "it runs", LIMIT, |update| update["state"] == "TASK_RUNNING" || is_last(update));
    let address = address(&update).unwrap_or_default().to_owned();
    assert!(address.starts_with("10.32."), "{update}");
    address
}

fn answered(lab: &Lab, name: &str) -> Vec<String> {
    let mut addresses: Vec<String> =
        lab.host.dig(&format!("+short {name}")).lines().map(str::to_owned).collect();
    addresses.sort();
    addresses
}

/// Whether a task's container gets a page from a server.
fn fetches(lab: &Lab, task: &str, server: &str) -> bool {
    let docker = lab.engine.docker();
    let container = docker.run(&["ps", "-q", "--filter", &format!("label=MESOS_TASK_ID={task}")]);
    let url = format!("http://{server}/hostname");
    docker.run(&["exec", container.ok(), "timeout", "5", "wget", "-q", "-O", "-", &url]).code == 0
}

/// Checked over HTTP in the container, and behind the virtual address `web`.
fn checked() -> App {
    let page = json!({"type": "HTTP", "http": {"port": 8080, "path": "/well", "scheme": "http"},
        "delay_seconds": 0.5, "interval_seconds": 0.5, "timeout_seconds": 10.0, "grace_period_seconds": 0.0,
        "consecutive_failures": 1000});
    let program =
        "echo well >/tmp/well; trap 'exit 0' TERM; httpd -p 8080 -h /tmp; while :; do sleep 0.1; done";
    App {
        health: Some(page),
        labels: &[("SELVEDGE_VIP", "web:80:8080")],
        ..App::new("/shop/web", Program::Shell(program))
    }
}

#[test]
fn a_task_whose_check_fails_leaves_the_virtual_address_and_comes_back() {
    let _alone = ALONE.lock();
    let lab = Lab::with_selvedge(&["--health-from", "mesos=http://127.0.0.1:5050"]);
    let text = lab.selvedge.ask(&["status"]).stdout;
    assert!(text.contains("a HEALTHCHECK of Docker's counts alone"), "no agent yet: {text}");
    let mesos = mesos(&lab.host, &lab.socket());
    let framework = mesos.framework("marathon");
    let tasks = framework.launch(&vec![checked(); 2]);
    let addresses: Vec<String> = tasks.iter().map(|task| runs(&framework, task)).collect();
    let both = [behind(&addresses[0]), behind(&addresses[1])];
    let only = [behind(&addresses[1])];
    let serve = |backends: &[String], when: &str| {
        let mut wanted = backends.to_vec();
        wanted.sort();
        until_true(when, LIMIT, || backends_of_web(&lab) == wanted);
    };
    serve(&both, "both are healthy");
    let docker = lab.engine.docker();
    let container = docker.run(&["ps", "-q", "--filter", &format!("label=MESOS_TASK_ID={}", tasks[0])]);
    docker.run(&["exec", container.ok(), "rm", "/tmp/well"]).ok();
    serve(&only, "the one whose page is missing is left out");
    // The next worker asks before it answers anything.
    lab.selvedge.ask(&["upgrade"]).ok();
    assert_eq!(backends_of_web(&lab), only, "after an upgrade");
    {
        let _stands_still = mesos.paused();
        docker.run(&["exec", container.ok(), "touch", "/tmp/well"]).ok();
        until_true("a silent agent is told of", LIMIT, || {
            lab.selvedge.status()["health_from"]["reason"].is_string()
        });
        let text = lab.selvedge.ask(&["status"]).stdout;
        assert!(text.contains("its verdicts of ") && text.contains("count (2 tasks)"), "{text}");
        assert_eq!(backends_of_web(&lab), only, "its last word stays");
    }
    serve(&both, "it is back");
    assert_eq!(lab.selvedge.status()["health_from"]["reason"], Value::Null);
}

fn behind(address: &str) -> String {
    format!("{address}:8080")
}

/// Who gets connections to the virtual address.
fn backends_of_web(lab: &Lab) -> Vec<String> {
    let backends = lab.selvedge.status()["vips"]["services"][0]["ports"][0]["backends"].clone();
    let mut backends: Vec<String> = serde_json::from_value(backends).unwrap_or_default();
    backends.sort();
    backends
}
