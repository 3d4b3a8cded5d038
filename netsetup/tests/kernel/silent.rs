//! The program that waits, under filters that end it for a system call: its list of calls is complete, and a silent one
//! makes none but execve(2).

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc;

use crate::lab::on_a_host;
use crate::waiting::{Waiting, programs};

const CALLS: &str = include_str!("../../../wait/system-calls");
/// As `wait/build.rs` and the worker have it.
const MAILBOX: u64 = 0x1000_0000;
const STATE: u64 = 16;
const GATE: u64 = 32;

const EXECVE: u32 = 59;
const EXIT_GROUP: u32 = 231;
const WRITE: u32 = 1;

/// Ends the process for every call that is not listed, also those of the programs that it becomes.
fn only(command: &mut Command, calls: &[u32]) {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for call in calls {
        program.extend([step(IF_EQUAL, 0, 1, *call), step(RETURN, 0, 0, ALLOW)]);
    }
    program.push(step(RETURN, 0, 0, KILL_PROCESS));
    let filter = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        let length = u16::try_from(program.len()).unwrap_or(0);
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        // SAFETY: the program lives until the call returns, and the kernel copies it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only unshare and prctl are called, which are async-signal-safe.
    unsafe { command.pre_exec(filter) };
}

/// `wait` by this name, with itself as a program that says how it is used and ends with 2: there is none that needs less.
fn start(name: &str, calls: &[u32]) -> Waiting {
    let program = programs().join("silent0");
    let _there_already = std::fs::copy(programs().join("wait"), &program);
    let mut command = Command::new(programs().join("wait"));
    command.arg0(name).arg(program).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    only(&mut command, calls);
    let process = command.spawn().unwrap();
    let waiting = Waiting { pid: process.id(), process };
    let begin = Instant::now();
    while !state(waiting.pid).starts_with("sv:wait") {
        assert!(begin.elapsed() < Duration::from_secs(10), "it tells nothing: {}", state(waiting.pid));
        std::thread::sleep(Duration::from_millis(1));
    }
    waiting
}

fn state(pid: u32) -> String {
    let mut name = [0; 16];
    let read = OpenOptions::new().read(true).open(format!("/proc/{pid}/mem"));
    let _not_yet = read.and_then(|memory| memory.read_exact_at(&mut name, MAILBOX + STATE));
    String::from_utf8_lossy(&name).into_owned()
}

fn open_gate(pid: u32) {
    let memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem")).unwrap();
    memory.write_all_at(&1_u32.to_ne_bytes(), MAILBOX + GATE).unwrap();
}

fn ended() -> (i32, String, String) {
    (2, String::new(), "usage: wait PROGRAM [ARGUMENT...]\n".to_owned())
}

#[test]
fn the_list_of_its_system_calls_is_complete() {
    on_a_host(|| async {
        let _programs = programs();
        let numbers = CALLS.lines().filter(|line| !line.starts_with('#'));
        let numbers = numbers.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap());
        let calls: Vec<u32> = numbers.chain([EXECVE]).collect();
        let waiting = start("wait", &calls);
        waiting.give_sign();
        assert_eq!(waiting.end(), ended());
        let gate = start("wait", &calls);
        open_gate(gate.pid);
        assert_eq!(gate.end(), ended(), "the gate counts as the route does");
    });
}

#[test]
fn a_silent_one_needs_nothing_but_execve() {
    on_a_host(|| async {
        let _programs = programs();
        let waiting = start(".selvedge-wait0", &[EXECVE, EXIT_GROUP, WRITE]);
        waiting.give_sign();
        std::thread::sleep(Duration::from_millis(50));
        assert!(state(waiting.pid).starts_with("sv:wait"), "it cannot see the route");
        open_gate(waiting.pid);
        assert_eq!(waiting.end(), ended());
    });
}

#[test]
fn a_silent_one_ends_as_the_engine_does_when_there_is_no_program() {
    on_a_host(|| async {
        let programs = programs();
        let at = |name: &str| programs.join(name).display().to_string();
        let path = format!("/nowhere:{}:{}", at("closed"), programs.display());
        let cases =
            [(at("nothing"), 127), (at("data"), 126), ("nothing".to_owned(), 127), ("script".to_owned(), 0)];
        for (program, code) in cases {
            let mut command = Command::new("/usr/bin/unshare");
            command.args(["-n", &at("wait0"), &program]).env("PATH", &path).stdin(Stdio::null());
            std::fs::copy(at("wait"), at("wait0")).unwrap();
            let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let waiting = Waiting { pid: process.id(), process };
            let begin = Instant::now();
            while !state(waiting.pid).starts_with("sv:wait") {
                assert!(begin.elapsed() < Duration::from_secs(10), "{program}");
            }
            open_gate(waiting.pid);
            assert_eq!(waiting.end().0, code, "{program}");
        }
    });
}
