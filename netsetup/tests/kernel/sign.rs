//! The program that waits: what it finds, what it tells, for what it waits, and what it becomes.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::Signal;

use crate::lab::{GATEWAY, on_a_host, ready_network, sh};
use crate::waiting::{Waiting, programs};

#[test]
fn it_tells_what_it_found_and_stays_until_it_is_stopped() {
    on_a_host(|| async {
        let programs = programs();
        let (in_directory, path) =
            (programs.to_str().unwrap(), format!("PATH={}", programs.to_str().unwrap()));
        let at = |name: &str| format!("{in_directory}/{name}");
        let cases = [
            (path.as_str(), "script".to_owned(), "sv:wait", 143),
            (&path, at("script"), "sv:wait", 143),
            (&path, "./script".to_owned(), "sv:wait", 143),
            (&path, "nothing".to_owned(), "sv:path", 127),
            // A file that is not executable, or a directory, is as good as absent in $PATH.
            (&path, "data".to_owned(), "sv:path", 127),
            (&path, "closed".to_owned(), "sv:path", 127),
            (&path, String::new(), "sv:path", 127),
            ("PATH=", "script".to_owned(), "sv:path", 127),
            ("PATH=.", "script".to_owned(), "sv:dot", 128),
            ("PATH=:/bin", "script".to_owned(), "sv:dot", 128),
            (&path, at("nothing"), "sv:noent", 127),
            (&path, at("script/under"), "sv:e20", 127),
            (&path, at("data"), "sv:perm", 126),
            (&path, at("closed"), "sv:isdir", 126),
        ];
        for (path, program, state, code) in cases {
            let waiting = Waiting::start(&["/usr/bin/env", path], &[&program, "argument"]);
            assert_eq!(waiting.state(), state, "{path} {program}");
            waiting.signal(Signal::SIGTERM);
            assert_eq!(waiting.end(), (code, String::new(), String::new()), "{path} {program}");
        }
    });
}

#[test]
fn a_user_sees_what_a_user_may() {
    on_a_host(|| async {
        let programs = programs();
        let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--inh-caps=-all"];
        let closed = programs.join("closed/script");
        let waiting = Waiting::start(&user, &[closed.to_str().unwrap()]);
        assert_eq!(waiting.state(), "sv:e13");
        waiting.signal(Signal::SIGTERM);
        assert_eq!(waiting.end().0, 126);
        let waiting = Waiting::start(&user, &["id", "-u"]);
        waiting.give_sign();
        assert_eq!(waiting.end(), (0, "1000\n".to_owned(), String::new()));
    });
}

#[test]
fn the_program_gets_everything_as_it_was() {
    on_a_host(|| async {
        let _programs = programs();
        let clean = "env -i PATH=/usr/bin:/bin EMPTY= NAME=a\\ b sh -c";
        let look = "echo \"$0\" \"$@\"; env; ls /proc/self/fd; grep -E 'Sig(Pnd|Blk|Ign|Cgt)|ShdPnd' /proc/self/status";
        let direct = sh(&format!("{clean} '{}' zero one ''", look.replace('\'', "'\\''")));
        let around = ["/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "EMPTY=", "NAME=a b"];
        let waiting = Waiting::start(&around, &["sh", "-c", look, "zero", "one", ""]);
        waiting.give_sign();
        let (code, out, err) = waiting.end();
        let same =
            |text: &str| text.lines().filter(|line| !line.starts_with("PWD=")).collect::<Vec<_>>().join("\n");
        assert_eq!((code, same(&out), err), (0, same(&direct), String::new()));
    });
}

#[test]
fn a_script_sees_the_path_that_runc_would_have_found() {
    on_a_host(|| async {
        let programs = programs();
        let directory = programs.to_str().unwrap();
        let path = format!("PATH=/nowhere:/{directory}//closed/./../");
        let waiting = Waiting::start(&["/usr/bin/env", &path], &["script", "x"]);
        waiting.give_sign();
        assert_eq!(waiting.end().1, format!("{directory}/script x\n"));
    });
}

#[test]
fn a_program_that_cannot_run_ends_as_with_runc() {
    on_a_host(|| async {
        let programs = programs();
        for (name, words) in
            [("text", "exec format error"), ("interpreter-missing", "no such file or directory")]
        {
            let file = programs.join(name);
            let waiting = Waiting::start(&[], &[file.to_str().unwrap()]);
            waiting.give_sign();
            assert_eq!(waiting.end(), (1, String::new(), format!("exec {}: {words}\n", file.display())));
        }
    });
}

#[test]
fn every_stop_signal_ends_the_wait_also_as_the_first_process() {
    on_a_host(|| async {
        let _programs = programs();
        let first_process = ["-p", "--fork", "--kill-child"];
        for around in [&[] as &[&str], &first_process] {
            for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
                let waiting = Waiting::start(around, &["true"]);
                waiting.signal(signal);
                assert_eq!(waiting.end().0, 128 + signal as i32);
            }
        }
        let waiting = Waiting::start(&first_process, &["nothing"]);
        waiting.signal(Signal::SIGWINCH);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(waiting.state(), "sv:path");
        waiting.signal(Signal::SIGTERM);
        assert_eq!(waiting.end().0, 127);
    });
}

#[test]
fn no_other_route_is_the_sign() {
    on_a_host(|| async {
        let _programs = programs();
        let waiting = Waiting::start(&[], &["true"]);
        waiting.give_link();
        waiting.ip("route add default via 169.254.1.1 proto static");
        waiting.ip("route add 10.0.0.0/8 via 169.254.1.1 table 83 proto 83");
        waiting.ip("route add blackhole 10.1.0.0/16 proto 83");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(waiting.state(), "sv:wait");
        waiting.ip("route add 10.32.0.0/12 via 169.254.1.1 proto 83");
        assert_eq!(waiting.end().0, 0);
    });
}

#[test]
fn the_sign_is_not_lost_in_a_flood() {
    on_a_host(|| async {
        let programs = programs();
        let waiting = Waiting::start(&[], &["true"]);
        waiting.give_link();
        waiting.signal(Signal::SIGSTOP);
        let routes: String = (0..20_000)
            .map(|number| format!("route add 10.200.{}.{} dev selvedge0\n", number / 250, number % 250))
            .collect();
        let file = programs.join("flood");
        std::fs::write(&file, routes).unwrap();
        waiting.ip(&format!("-batch {}", file.display()));
        waiting.ip("route add 10.32.0.0/12 via 169.254.1.1 proto 83");
        waiting.signal(Signal::SIGCONT);
        assert_eq!(waiting.end().0, 0);
    });
}

#[test]
fn a_sign_that_is_there_already_is_seen() {
    on_a_host(|| async {
        let programs = programs();
        let script = format!(
            "ip link add selvedge0 type veth peer name o; ip link set selvedge0 up; ip link set o up; \
             ip route add {GATEWAY} dev selvedge0; ip route add 10.32.0.0/12 via {GATEWAY} proto 83; \
             exec {} echo yes",
            programs.join("wait").display()
        );
        let output = Command::new("unshare").args(["-n", "sh", "-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "yes\n");
    });
}

/// A seccomp profile that answers EPERM to `socket(AF_NETLINK, ..)` and to signalfd4.
fn refuse_netlink(command: &mut Command) -> &mut Command {
    const LOAD: u16 = 0x20;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let filter = move || {
        let program = [
            step(LOAD, 0, 0, 0),
            step(IF_EQUAL, 4, 0, 289),
            step(IF_EQUAL, 0, 2, 41),
            step(LOAD, 0, 0, 16),
            step(IF_EQUAL, 1, 0, 16),
            step(RETURN, 0, 0, ALLOW),
            step(RETURN, 0, 0, EPERM),
        ];
        let program = libc::sock_fprog { len: 7, filter: program.as_ptr().cast_mut() };
        // SAFETY: the program lives until the call returns, and the kernel copies it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { command.pre_exec(filter) }
}

#[test]
fn a_profile_that_refuses_netlink_only_makes_it_slower() {
    on_a_host(|| async {
        let _programs = programs();
        let start = || {
            let mut command = Command::new("unshare");
            Waiting::start_command(refuse_netlink(command.arg("-n")), &["echo", "yes"])
        };
        let waiting = start();
        waiting.give_link();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(waiting.state(), "sv:wait");
        waiting.ip("route add 10.32.0.0/12 via 169.254.1.1 proto 83");
        assert_eq!(waiting.end(), (0, "yes\n".to_owned(), String::new()));
        let stopped = start();
        stopped.signal(Signal::SIGTERM);
        assert_eq!(stopped.end().0, 143);
    });
}

#[test]
fn under_dockers_init_it_fails_as_the_init_does() {
    on_a_host(|| async {
        let programs = programs();
        let around = ["-p", "--fork", "--kill-child", "--mount-proc", "docker-init", "--"];
        let at = |name: &str| programs.join(name).to_str().unwrap().to_owned();
        let programs = [
            at("nothing"),
            at("data"),
            at("closed"),
            at("script/under"),
            at("text"),
            at("script"),
            at("interpreter-missing"),
            "nothing".to_owned(),
            String::new(),
        ];
        for program in programs {
            let direct =
                Command::new("unshare").arg("-n").args(around).args([&program, "a", "b"]).output().unwrap();
            let waiting = Waiting::start(&around, &[&program, "a", "b"]);
            assert_eq!(waiting.state(), "sv:wait");
            waiting.give_sign();
            let direct = (
                direct.status.code().unwrap(),
                String::from_utf8(direct.stdout).unwrap(),
                String::from_utf8(direct.stderr).unwrap(),
            );
            assert_eq!(waiting.end(), direct, "{program}");
        }
        let stopped = Waiting::start(&around, &["true"]);
        stopped.signal(Signal::SIGTERM);
        assert_eq!(stopped.end().0, 143);
    });
}

#[test]
fn the_real_wire_starts_the_program_at_once() {
    on_a_host(|| async {
        let _programs = programs();
        let network = ready_network().await;
        let mut times = Vec::new();
        for number in 1..=20_u8 {
            let mut waiting = Waiting::start(&[], &["/bin/busybox", "true"]);
            let spec = selvedge_netsetup::WireSpec {
                container: format!("{number:064x}").chars().rev().collect(),
                address: std::net::Ipv4Addr::new(10, 32, 9, number),
                pid: waiting.pid,
            };
            network.connect(&spec).await.unwrap();
            assert_eq!(waiting.state(), "sv:wait");
            let begin = Instant::now();
            let _may_have_ended_already = network.release(&spec).await;
            assert!(waiting.process.wait().unwrap().success());
            times.push(begin.elapsed());
        }
        times.sort();
        println!("release, exec and exit of a program: median {:?}, slowest {:?}", times[10], times[19]);
        assert!(times[10] < Duration::from_millis(50));
    });
}
