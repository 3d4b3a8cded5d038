//! `scripts/lab` keeps its word: hosts that stay until `down`, commands to them, and nothing after their end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use selvedge_tests::selvedge::binary;
use selvedge_tests::shell::{Output, run};
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(15);

/// A lab of a test's own, beside that of whoever works on this machine. It goes with the test.
struct Lab {
    dir: PathBuf,
}

impl Lab {
    fn new(name: &str) -> Self {
        Self { dir: PathBuf::from(format!("/tmp/svl-{}-{name}", std::process::id())) }
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge-lab"));
        command.env("SELVEDGE_LAB", &self.dir).env("SELVEDGE_BINARY", binary());
        run(command.args(line.split(' ')), b"")
    }

    fn refused(&self, line: &str, code: i32) {
        let output = self.run(line);
        assert_eq!(output.code, code, "{line}: {output:?}");
        assert_eq!((output.stdout.as_str(), output.stderr.is_empty()), ("", false), "{line}");
    }

    fn namespaces(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("hosts.json")).expect("a lab writes its hosts down");
        let hosts: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
        hosts.iter().map(|host| host["netns"].as_str().expect("a name").to_owned()).collect()
    }

    fn nothing_stays(&self, namespaces: &[String]) {
        until_true("the namespaces are gone", SOON, || {
            let there = run(Command::new("ip").arg("netns"), b"").stdout;
            !namespaces.iter().any(|name| there.contains(name))
        });
        let prefix = namespaces[0].rsplit_once('-').expect("svt-PID-N").0.replace("svt-", "/tmp/svt-");
        until_true("processes and files are gone", SOON, || {
            let left = run(Command::new("sh").args(["-c", &format!("ls -d {prefix}-* 2>/dev/null")]), b"");
            left.stdout.is_empty()
        });
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run("down");
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_lab_stays_does_as_it_is_told_and_goes() {
    let lab = Lab::new("a");
    lab.refused("status", 1);
    lab.run("up 3 --links 2 --store etcd").ok();
    lab.refused("up 1", 1);
    lab.run("docker 1 run -d --name web busybox sleep 1000").ok();
    lab.run("docker 3 run -d --name near busybox sleep 1000").ok();
    let ping = "docker 3 exec near ping -c 1 -W 1 web";
    until_true("the name is known, and the way", SOON, || lab.run(ping).code == 0);
    assert_eq!(lab.run("docker 2 ps -q").ok(), "", "each host has its own");
    lab.run("cut 1 3").ok();
    assert_ne!(lab.run(ping).code, 0, "it is cut");
    lab.run("heal").ok();
    until_true("it is healed", SOON, || lab.run(ping).code == 0);
    lab.run("store kill 1").ok();
    assert!(lab.run("selvedge 3 ps").ok().contains("near"));
    lab.run("kill 2").ok();
    until_true("a killed host is seen as dead", SOON, || {
        let status = lab.run("status").stdout;
        status.contains("DEAD") && status.matches("1 others alive").count() == 2
    });
    for wrong in ["cut 1 9", "sh 0 true", "docker 4 ps", "kill 0", "store kill 4", "store kill"] {
        lab.refused(wrong, 1);
    }
    for wrong in ["what", "cut 1", "kill two", "up 0", "up 99"] {
        lab.refused(wrong, 2);
    }
    assert_eq!(lab.run("sh 3 exit-code-of-nobody").code, 127, "the code is the command's");
    let namespaces = lab.namespaces();
    lab.run("down").ok();
    lab.nothing_stays(&namespaces);
    lab.refused("status", 1);
}

#[test]
fn a_lab_goes_with_its_supervisor() {
    let lab = Lab::new("b");
    lab.run("up 1 --store none").ok();
    lab.run("docker 1 run -d busybox sleep 1000").ok();
    let namespaces = lab.namespaces();
    // svt-PID-NUMBERx: the pid is the supervisor's.
    let supervisor = namespaces[0].split('-').nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("it runs");
    lab.nothing_stays(&namespaces);
}
