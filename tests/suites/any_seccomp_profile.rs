//! Under every seccomp profile that lets a program run, it runs through Selvedge: the profiles of `tests/tables/seccomp.txt`,
//! on the bare engine and through us, with the wire up before the program has ended.

use std::io::Write;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::shell::Output;
use selvedge_tests::wait::until_true;
use serde_json::{Value, json};

const TABLE: &str = include_str!("../tables/seccomp.txt");

/// The calls that `wait` makes and busybox does not, see `wait/system-calls`.
const WAIT: &str = "socket bind sendto recvfrom ppoll signalfd4 rt_sigtimedwait";
const BUSYBOX: &str = "read write poll mprotect brk rt_sigaction getpid execve uname readlink getuid getppid prctl arch_prctl \
    set_tid_address newfstatat set_robust_list prlimit64 getrandom rseq exit_group ioctl lseek getcwd dup2 fcntl rt_sigprocmask";
/// The Go runtime's own, and what closes the runtime's descriptors.
const RUNTIME: &str = "futex nanosleep clock_nanosleep sched_yield epoll_pwait epoll_ctl rt_sigreturn sigaltstack tgkill gettid \
    openat fstatfs fstat getdents64 close close_range mmap munmap madvise restart_syscall clone clone3";

/// What runs under each profile: it ends when it has been told something, by then its wire must be there.
const PROGRAM: [&str; 4] = ["busybox", "sh", "-c", "read x; echo \"got $x\"; exit 7"];

/// A line of the table.
struct Profile {
    name: String,
    json: Value,
    options: Vec<&'static str>,
}

fn profiles() -> Vec<Profile> {
    TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(profile).collect()
}

fn profile(line: &str) -> Profile {
    let (name, rest) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
    let mut words = rest.split(' ');
    let (rule, given) = (words.next().expect("a rule"), words.next().expect("an action"));
    let words: Vec<&str> = words.collect();
    let calls = words.iter().filter(|word| **word != "nnp").flat_map(|word| match *word {
        "@wait" => WAIT.split(' ').collect(),
        "@busybox" => BUSYBOX.split_ascii_whitespace().collect(),
        "@runtime" => RUNTIME.split_ascii_whitespace().collect(),
        other => vec![other],
    });
    let (default, special) = match rule {
        "deny" => (action("allow"), action(given)),
        "allow" => (action(given), action("allow")),
        other => panic!("{other}: {line}"),
    };
    let rules: Vec<Value> = calls.map(|call| rule_of(call, &special)).collect();
    let mut json = json!({"defaultAction": default["action"], "syscalls": rules});
    if let Some(errno) = default.get("errnoRet") {
        json["defaultErrnoRet"] = errno.clone();
    }
    let options = if words.contains(&"nnp") { vec!["--security-opt", "no-new-privileges"] } else { vec![] };
    Profile { name: name.to_owned(), json, options }
}

fn rule_of(call: &str, special: &Value) -> Value {
    let mut rule = special.clone();
    rule["names"] = json!([if call == "netlink" { "socket" } else { call }]);
    if call == "netlink" {
        rule["args"] = json!([{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}]);
    }
    rule
}

fn action(word: &str) -> Value {
    match word.split_once('/') {
        Some((_, errno)) => json!({
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": errno.parse::<u32>().expect("a number"),
        }),
        None => json!({"action": format!("SCMP_ACT_{}", word.to_uppercase().replace('-', "_"))}),
    }
}

struct Place<'a> {
    host: &'a Host,
    direct: Docker,
    through: Docker,
}

const SOON: Duration = Duration::from_secs(8);

impl Place<'_> {
    fn option(&self, profile: &Profile) -> String {
        let file: PathBuf = self.host.path("profile.json");
        std::fs::write(&file, profile.json.to_string()).expect("a file can be made");
        format!("seccomp={}", file.display())
    }

    /// Why a profile makes a difference, if it does. `None` also where nothing runs without us.
    fn differs(&self, profile: &Profile, ran: &mut usize) -> Option<String> {
        let option = self.option(profile);
        let run = [&["run", "--rm", "-i", "--security-opt", &option], &profile.options[..]].concat();
        let plain = self.direct.run_with(&[&run[..], &PROGRAM].concat(), b"it\n");
        if plain.code != 7 {
            eprintln!("{}: does not run without us: {}", profile.name, plain.stderr.trim());
            return None;
        }
        *ran += 1;
        let run = [&run[..], &["--name", &profile.name], &PROGRAM].concat();
        let ours = self.through_us(self.through.spawn(&run), &profile.name);
        self.through.remove(&[&profile.name]);
        match ours {
            Ok(ours) if ours == plain => None,
            other => Some(format!("{}: {other:?}, without us {plain:?}", profile.name)),
        }
    }

    /// The program's end, once its wire is up.
    fn through_us(&self, mut client: Child, name: &str) -> Result<Output, String> {
        let begin = std::time::Instant::now();
        while !self.has_wire(name) {
            if begin.elapsed() > SOON || client.try_wait().is_ok_and(|ended| ended.is_some()) {
                self.through.remove(&[name]);
                let _ended = client.kill();
                return Err(format!("no wire: {:?}", client.wait_with_output()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut input = client.stdin.take().expect("stdin is a pipe");
        input.write_all(b"it\n").map_err(|error| error.to_string())?;
        drop(input);
        while client.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begin.elapsed() > SOON {
                self.through.remove(&[name]);
                return Err("it has its wire, and does not go on".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let output = client.wait_with_output().map_err(|error| error.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().unwrap_or(-1);
        Ok(Output { stdout: text(output.stdout), stderr: text(output.stderr), code })
    }

    fn has_wire(&self, name: &str) -> bool {
        let format = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}";
        let shown = self.through.run(&["inspect", "--type=container", "--format", format, name]).stdout;
        let Some((pid, address)) = shown.trim().split_once(' ') else { return false };
        let look = format!("nsenter -t {pid} -n ip -4 -o addr show dev selvedge0");
        pid != "0" && self.host.sh(&look).stdout.contains(&format!("inet {address}/32"))
    }
}

/// All profiles of the table on one engine; the differences, and how many profiles let the program run at all.
fn compare(place: &Place<'_>) -> (Vec<String>, usize) {
    let mut ran = 0;
    let differences = profiles().iter().filter_map(|profile| place.differs(profile, &mut ran)).collect();
    (differences, ran)
}

fn holds_on(engine: &Engine, host: &Host) {
    let selvedge = Selvedge::start(host, engine, &[]);
    let place = Place { host, direct: engine.docker(), through: engine.docker_at(&selvedge.socket()) };
    let (differences, ran) = compare(&place);
    assert!(differences.is_empty(), "{} of {ran}:\n{}", differences.len(), differences.join("\n"));
    let all = profiles().len();
    assert!(ran * 10 >= all * 9, "only {ran} of {all} profiles let the program run: they show nothing");
}

#[test]
fn what_runs_under_a_profile_runs_with_a_wire_on_debians_engine() {
    let host = Host::new();
    holds_on(&Engine::debian(&host, &[]), &host);
}

#[test]
fn what_runs_under_a_profile_runs_with_a_wire_on_todays_engine() {
    let host = Host::new();
    holds_on(&Engine::trixie(&host, &[]), &host);
}

#[test]
fn the_engines_own_profile_counts_as_well() {
    let host = Host::new();
    let strictest = profiles().into_iter().find(|profile| profile.name == "all-killed").expect("it is there");
    let file = host.path("default.json");
    std::fs::write(&file, strictest.json.to_string()).expect("a file can be made");
    let engine = Engine::debian(&host, &["--seccomp-profile", &file.display().to_string()]);
    let selvedge = Selvedge::start(&host, &engine, &[]);
    let place = Place { host: &host, direct: engine.docker(), through: selvedge.docker() };
    let run = [&["run", "--rm", "-i", "--name", "engines-own"][..], &PROGRAM].concat();
    let ours = place.through_us(place.through.spawn(&run), "engines-own");
    assert_eq!(ours.map(|output| (output.code, output.stdout)), Ok((7, "got it\n".to_owned())));
    let kills = engine.docker().run(&["run", "--rm", "busybox", "nc", "127.0.0.1", "1"]);
    assert_eq!(kills.code, 128 + 31, "the profile is not in force: {kills:?}");
}

#[test]
fn one_that_the_engine_starts_while_we_are_away_waits_for_us() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let selvedge = Selvedge::start(&host, &engine, &[]);
    let docker = selvedge.docker();
    let profile = profiles().into_iter().find(|profile| profile.name == "small-killed").expect("it is there");
    let file = host.path("profile.json");
    std::fs::write(&file, profile.json.to_string()).expect("a file can be made");
    let option = format!("seccomp={}", file.display());
    let options = [&["create", "--security-opt", &option], &profile.options[..]].concat();
    let create = [&options[..], &["--name", "early", "busybox", "sleep", "1000"]].concat();
    let id = docker.run(&create).ok().to_owned();
    selvedge.stop();
    engine.docker().run(&["start", &id]).ok();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(engine.docker().inspect(&id)["State"]["Running"], true);
    selvedge.start_again();
    let place = Place { host: &host, direct: engine.docker(), through: selvedge.docker() };
    until_true("it is wired", SOON, || place.has_wire("early"));
    let program = || engine.docker().run(&["top", "early", "-o", "pid,comm"]).stdout;
    until_true("its program runs", SOON, || program().contains("sleep"));
    docker.remove(&["early"]);
}
