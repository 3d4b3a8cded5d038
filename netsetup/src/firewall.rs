//! Docker sets the policy of FORWARD to DROP and asks others to put what they accept into its chain
//! DOCKER-USER. That chain is written with the `iptables` command, in the variant that the host has and that
//! dockerd itself runs: native nft text in iptables-nft's tables can make iptables refuse them.

use std::io;
use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::process::Command;

use crate::error::Error;

/// Lets packets from container to container pass; whether the rule was missing. Without the chain there is
/// nothing that drops them.
pub(crate) async fn accept(pool: Ipv4Net) -> Result<bool, Error> {
    let pool = pool.to_string();
    let rule = ["-s", &pool, "-d", &pool, "-i", "sv+", "-o", "sv+", "-j", "ACCEPT"];
    match iptables(&["-nL", "DOCKER-USER"], &[]).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::Firewall(error.to_string())),
    }
    if matches!(iptables(&["-C", "DOCKER-USER"], &rule).await, Ok(Ok(()))) {
        return Ok(false);
    }
    match iptables(&["-I", "DOCKER-USER"], &rule).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(text)) => Err(Error::Firewall(text)),
        Err(error) => Err(Error::Firewall(error.to_string())),
    }
}

/// Runs the command; the inner error is its own last line.
async fn iptables(verb: &[&str], rule: &[&str]) -> io::Result<Result<(), String>> {
    // `-w`: dockerd holds the lock at times.
    let mut command = Command::new("iptables");
    command.arg("-w").args(verb).args(rule).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    // A service's PATH may lack it.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    let output = command.output().await?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Ok(Err(text.lines().last().unwrap_or("iptables failed").to_owned()))
}
