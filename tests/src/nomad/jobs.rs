//! Jobs of every kind, and what came of each: the same lines, with or without Selvedge between driver and engine.

use std::time::Duration;

use serde_json::json;

use super::client::Failure;
use super::driver::Driver;
use super::handle::{Handle, Output};
use super::task::{IMAGE, PAUSE, Task};
use crate::docker::Docker;

/// Gives the engine the two images.
pub fn prepare(docker: &Docker) {
    let line = "trap exit TERM; while :; do sleep 1 & wait; done";
    let file = format!("FROM busybox\\nENTRYPOINT [\\\"sh\\\", \\\"-c\\\", \\\"{line}\\\"]");
    let script = format!("docker tag busybox {IMAGE} && printf \"{file}\" | docker build -q -t {PAUSE} -");
    let made = docker.script(&script, b"");
    assert_eq!(made.code, 0, "{}{}", made.stdout, made.stderr);
}

/// A kind of job: what it does, and what came of it.
type Kind = (&'static str, fn(&Driver, &str, &str) -> Result<String, Failure>);

/// All kinds.
pub const KINDS: [Kind; 10] = [
    ("a task on the host's network", on_the_host),
    ("a task on the engine's bridge that writes much and fails", on_the_bridge),
    ("a group of two tasks on one network", group),
    ("a stop within the grace period", graceful),
    ("a stop with a signal", by_signal),
    ("a stop that is not heard", deaf),
    ("a task that fails and is restarted", restarted),
    ("an image that is not there", no_image),
    ("a command that is not there", no_command),
    ("checks and exec in a task", checked),
];

/// Runs a job of each kind at once; a line each.
#[must_use]
pub fn run(driver: &Driver, dir: &str, round: usize) -> Vec<String> {
    let one = |(number, (name, kind)): (usize, &Kind)| {
        let alloc = format!("{round:08x}-0000-4000-8000-{number:012x}");
        let made = ["alloc/logs", "local", "secrets"].map(|folder| format!("{dir}/{alloc}/{folder}"));
        made.iter().for_each(|folder| std::fs::create_dir_all(folder).expect("a folder can be made"));
        let outcome = kind(driver, &alloc, &format!("{dir}/{alloc}"));
        // An engine's messages name containers by their ids.
        format!("{name}: {outcome:?}").replace(&alloc, "ALLOC")
    };
    std::thread::scope(|scope| {
        let jobs: Vec<_> = KINDS.iter().enumerate().map(|job| scope.spawn(move || one(job))).collect();
        jobs.into_iter().map(|job| job.join().expect("a job does not panic")).collect()
    })
}

fn told(handle: &Handle, code: i64) -> Result<String, Failure> {
    let output = handle.output()?;
    handle.destroy()?;
    Ok(format!("code {code}, {}", shown(&output)))
}

fn shown((out, err): &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match out.len() {
        0..200 => format!("{:?} {:?}", text(out), text(err)),
        long => format!(
            "{long} bytes of output, sum {}, {:?}",
            out.iter().map(|b| u64::from(*b)).sum::<u64>(),
            text(err)
        ),
    }
}

fn task(alloc: &str, dir: &str, name: &str, line: &str) -> Task {
    Task { dir: dir.to_owned(), ..Task::of(alloc, name, line) }
}

fn on_the_host(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let line = "echo out; echo err >&2; ls /alloc /local /secrets | wc -l; exit 4";
    let host = Task { network_mode: Some("host".to_owned()), ..task(alloc, dir, "host", line) };
    let handle = driver.start(&host)?;
    let code = handle.code()?;
    told(&handle, code)
}

fn on_the_bridge(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let line = "i=0; while [ $i -lt 3000 ]; do echo line $i of many; i=$((i+1)); [ $((i%100)) = 0 ] && sleep 0.1; done; exit 3";
    let handle = driver.start(&task(alloc, dir, "loud", line))?;
    for _ in 0..2 {
        handle.stats()?;
    }
    let code = handle.code()?;
    told(&handle, code)
}

fn group(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let pause = driver.create_network(alloc)?;
    let joined = |name: &str, line: &str| Task {
        group: Some(pause.clone()),
        labels: json!({"team": "a"}),
        ..task(alloc, dir, name, line)
    };
    let server =
        driver.start(&joined("server", "echo served >/tmp/page; exec httpd -f -p 127.0.0.1:8080 -h /tmp"))?;
    let asks = "i=0; until wget -qO- http://127.0.0.1:8080/page; do i=$((i+1)); [ $i = 50 ] && exit 1; sleep 0.1; done 2>/dev/null";
    let client = driver.start(&joined("client", asks))?;
    let code = client.code()?;
    let told_by_client = told(&client, code)?;
    let code = server.stop(Duration::from_secs(1), None)?;
    let told_by_server = told(&server, code)?;
    driver.destroy_network(&pause)?;
    Ok(format!("{told_by_client}; {told_by_server}"))
}

/// A task that says when it is ready to be stopped.
fn trapping(driver: &Driver, alloc: &str, dir: &str, trap: &str) -> Result<Handle, Failure> {
    let line = format!("{trap}; touch /local/ready; while :; do sleep 0.1; done");
    let handle = driver.start(&task(alloc, dir, "trapping", &line))?;
    until_touched(dir, "ready");
    Ok(handle)
}

/// Waits until the task has made this file.
fn until_touched(dir: &str, name: &str) {
    let file = std::path::Path::new(dir).join("local").join(name);
    crate::wait::until_true(&format!("it is {name}"), Duration::from_secs(60), || file.exists());
}

fn graceful(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let handle = trapping(driver, alloc, dir, "trap 'sleep 1; echo bye; exit 5' TERM")?;
    let code = handle.stop(Duration::from_secs(20), None)?;
    told(&handle, code)
}

fn by_signal(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let handle = trapping(
        driver,
        alloc,
        dir,
        "trap 'echo hup; touch /local/hupped' HUP; trap 'echo usr1; exit 6' USR1",
    )?;
    handle.signal("SIGHUP")?;
    until_touched(dir, "hupped");
    let code = handle.stop(Duration::from_secs(30), Some("SIGUSR1"))?;
    told(&handle, code)
}

fn deaf(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let handle = trapping(driver, alloc, dir, "trap '' TERM")?;
    let code = handle.stop(Duration::from_secs(2), None)?;
    told(&handle, code)
}

/// Nomad's own restarts: the container goes, and one of the same name comes.
fn restarted(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let mut lives = Vec::new();
    for life in 0..3 {
        let handle = driver.start(&task(alloc, dir, "failing", &format!("echo life {life}; exit {life}")))?;
        let code = handle.code()?;
        lives.push(told(&handle, code)?);
    }
    Ok(lives.join("; "))
}

fn no_image(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let missing =
        Task { image: "nowhere.invalid/missing:1".to_owned(), ..task(alloc, dir, "missing", "true") };
    // What a resolver says has its port and its time in it.
    match driver.start(&missing) {
        Err(failure) => Ok(format!("refused: {}", failure.get(..20).unwrap_or(&failure))),
        Ok(_) => Err("it runs".to_owned()),
    }
}

fn no_command(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let missing = Task { command: vec!["/no/such".to_owned()], ..task(alloc, dir, "missing", "") };
    match driver.start(&missing) {
        Err(failure) => Ok(format!("refused: {failure}")),
        Ok(_) => Err("it runs".to_owned()),
    }
}

fn checked(driver: &Driver, alloc: &str, dir: &str) -> Result<String, Failure> {
    let handle = trapping(driver, alloc, dir, "trap 'exit 0' TERM")?;
    let mut lines = Vec::new();
    for number in 0..8 {
        let line = format!("echo check {number}; echo warns >&2; exit {number}");
        let (code, output) = handle.check(&["sh", "-c", &line])?;
        lines.push(format!("{code} {}", shown(&output)));
    }
    let (code, output) = handle.exec_with(&["cat"], b"typed in\n")?;
    lines.push(format!("exec {code} {}", shown(&output)));
    let code = handle.stop(Duration::from_secs(10), None)?;
    lines.push(told(&handle, code)?);
    Ok(lines.join("; "))
}
