//! What a process has used: CPU time and memory. Must never look at more than the processes it is given.

use std::time::Duration;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU seconds, user and system, that these processes have used so far.
///
/// That is the sum of utime and stime in /proc/PID/stat, read from the clock behind it (clock_getcpuclockid(3)): stat
/// rounds to 10 ms, which is several per cent of a turn.
///
/// # Errors
/// One of them has ended.
pub(crate) fn cpu(pids: &[u32]) -> anyhow::Result<f64> {
    let mut sum = Duration::ZERO;
    for &pid in pids {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?));
        let clock = clock.with_context(|| format!("process {pid} has ended"))?;
        sum += Duration::from(clock_gettime(clock)?);
    }
    Ok(sum.as_secs_f64())
}

/// Proportional set size of these processes in KiB (proc(5): `smaps_rollup`).
///
/// # Errors
/// One of them has ended.
pub(crate) fn pss(pids: &[u32]) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for pid in pids {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        sum += line.split_whitespace().next().context("no figure")?.parse::<f64>()?;
    }
    Ok(sum)
}

/// A thousand idle connections are more than the 1,024 descriptors that a process has by default.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn raise_descriptor_limit() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("more descriptors")
}
