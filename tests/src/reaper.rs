//! Takes away what a test host leaves: its processes, mounts, namespaces and files.
//!
//! A process of its own does it when our end of its pipe closes, which the kernel does for us however we end.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// While it lives, nothing is taken away.
#[derive(Debug)]
pub struct Reaper {
    pipe: Option<std::process::ChildStdin>,
    child: std::process::Child,
}

// Engines, shims and Selvedges name the directory on their command line; containers are their children. All
// are ended by pid. `cat` ends when the tests do.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
children() { for p in $(cat /proc/$1/task/*/children 2>/dev/null); do echo $p; children $p; done; }
for round in 1 2 3; do
    found=
    for d in /proc/[0-9]*; do
        p=${d#/proc/}
        [ $p = $$ ] && continue
        if tr '\0' ' ' <$d/cmdline 2>/dev/null | grep -qF -- "$DIR"; then found="$found $(children $p) $p"; fi
    done
    [ -z "$found" ] && break
    # A killed engine leaves its containers' cgroups behind.
    for p in $found; do groups="$groups $(cut -d: -f3 /proc/$p/cgroup 2>/dev/null | grep -E '/[0-9a-f]{64}$' | sort -u)"; done
    kill -9 $found 2>/dev/null
    sleep 0.2
done
for m in $(grep -F " $DIR" /proc/self/mountinfo | cut -d' ' -f5 | sort -r); do umount -l "$m" 2>/dev/null; done
for g in $groups; do rmdir /sys/fs/cgroup$g /sys/fs/cgroup/*$g 2>/dev/null; done
for n in $NETNS; do ip netns del $n 2>/dev/null; done
rm -rf "$DIR" 2>/dev/null || { sleep 1; rm -rf "$DIR"; }
"#;

impl Reaper {
    /// A reaper of this directory and these namespaces.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn of(dir: &Path, namespaces: &str) -> Self {
        crate::limit::watch();
        let mut command = Command::new("sh");
        // Handed over by the environment: on the command line the reaper would find itself.
        command.args(["-c", SCRIPT]).env("DIR", dir).env("NETNS", namespaces).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().expect("the reaper can be started");
        let pipe = child.stdin.take();
        Self { pipe, child }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.child.wait();
    }
}

/// Appends a line to a file, for people who look at what is left of a failed run.
pub fn note(path: &Path, line: &str) {
    if let Ok(mut file) = File::options().create(true).append(true).open(path) {
        let _ = writeln!(file, "{line}");
    }
}
