//! `selvedge`: one binary that is keeper, worker and command line. Here stands only which of them it is, and
//! how it ends: 0 done, 1 failed with one line on stderr, 2 wrong usage.

mod admin;
mod checks;
mod cli;
mod client;
mod config;
mod health;
mod log;
mod parts;
mod port;
mod pulse;
mod run;
mod settings;
mod status;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Check, Cli, Command, Options};
use crate::config::{Config, ConfigError, Source, of_environment};
use crate::log::Destination;

fn main() -> ExitCode {
    // clap itself ends with 2 on wrong usage.
    let cli = Cli::try_parse().unwrap_or_else(|error| match of_environment(&error) {
        Some(line) => usage(&line),
        None => error.exit(),
    });
    match command(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "selvedge: {error:#}");
            if error.is::<ConfigError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Wrong usage that clap would tell of in other words.
#[expect(clippy::exit, reason = "part of main, as clap's own `exit` is")]
fn usage(line: &str) -> ! {
    let _ = writeln!(std::io::stderr(), "selvedge: {line}");
    std::process::exit(2)
}

fn command(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run::run(&settings(options, false)?)?,
        Command::Worker(options) => worker::run(settings(options, true)?)?,
        Command::Status(status) => return client::status(&status, print),
        Command::Ps(query) => print(&client::ps(&query)?)?,
        // A reader that has gone does not stop an upgrade.
        Command::Upgrade(options) => client::upgrade(&options, |line| drop(print(&format!("{line}\n"))))?,
        Command::Forget(options) => client::forget(&options)?,
        Command::Check(Check { network: true, options }) => {
            let (report, fine) = client::plan(&config::settings(options)?.runtime_dir)?;
            print(&report)?;
            return Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Check(Check { options, .. }) => {
            let mut code = ExitCode::SUCCESS;
            for finding in checks::all(&config::settings(options)?) {
                print(&finding.line())?;
                if finding.is_fatal() {
                    code = ExitCode::FAILURE;
                }
            }
            return Ok(code);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings, with the log turned on as they say.
fn settings(options: Options, is_worker: bool) -> anyhow::Result<Config> {
    use tracing_subscriber::EnvFilter;
    let config = config::settings(options)?;
    // We report on a registry's servers in our own words; a filter that names these crates shows theirs too.
    let quiet = "zookeeper_client=off,tower=warn,h2=warn,rustls=warn";
    let filter =
        EnvFilter::try_new(format!("{quiet},{}", config.log)).map_err(|error| ConfigError::Value {
            by: Source::Flag,
            name: "log",
            value: config.log.clone(),
            reason: error.to_string(),
        })?;
    log::init(filter, config.log_json, Destination::of(is_worker));
    Ok(config)
}

/// A reader that has had enough (`| head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
