//! `selvedge`: one binary that is keeper, worker and command line. Here stands only which of them it is, and
//! how it ends: 0 done, 1 failed with one line on stderr, 2 wrong usage.

mod admin;
mod balancer;
mod book;
mod check;
mod cli;
mod client;
mod config;
mod counters;
mod docker;
mod fabric;
mod front;
mod guard;
mod handover;
mod held;
mod hosts;
mod naming;
mod note;
mod program;
mod reconcile;
mod rewrite;
mod route;
mod run;
mod services;
mod serving;
mod tenant;
mod trouble;
mod watch;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Check, Cli, Command, Options};
use crate::config::{Config, ConfigError};

fn main() -> ExitCode {
    // clap itself ends with 2 on wrong usage.
    let cli = Cli::parse();
    match command(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "selvedge: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run::run(&settings(options)?)?,
        Command::Worker(options) => worker::run(settings(options)?)?,
        Command::Status(query) => print(&client::status(&query)?)?,
        Command::Ps(query) => print(&client::ps(&query)?)?,
        // A reader that has gone does not stop an upgrade.
        Command::Upgrade(options) => client::upgrade(&options, |line| drop(print(&format!("{line}\n"))))?,
        Command::Forget(options) => client::forget(&options)?,
        Command::Check(Check { network: true, options }) => {
            let (report, fine) = client::plan(&Config::new(options)?.runtime_dir)?;
            print(&report)?;
            return Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Check(Check { options, .. }) => {
            let (report, fine) = check::check(&Config::new(options)?)?;
            print(&report)?;
            return Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings, with the log turned on as they say.
fn settings(options: Options) -> anyhow::Result<Config> {
    use tracing_subscriber::EnvFilter;
    let config = Config::new(options)?;
    // What they tell of a registry's servers we tell in our own words; whoever wants theirs as well names them.
    let quiet = "zookeeper_client=off,tower=warn,h2=warn,rustls=warn";
    let filter = EnvFilter::try_new(format!("{quiet},{}", config.log)).map_err(|error| {
        ConfigError::Value { name: "log", value: config.log.clone(), reason: error.to_string() }
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.with_target(false).init();
    }
    Ok(config)
}

/// A reader that has had enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
