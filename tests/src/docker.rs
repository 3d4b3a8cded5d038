//! The real docker CLI, of any version, against any socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::shell::{Output, run};

/// Debian's CLI.
pub const DEBIAN: &str = "/usr/bin/docker";
/// A newer one, where it is installed.
pub const NEWER: &str = "/usr/local/bin/docker";

/// A CLI and the socket it talks to.
#[derive(Debug, Clone)]
pub struct Docker {
    program: PathBuf,
    socket: PathBuf,
    /// A process whose mount namespace the CLI lives in.
    mounts_of: Option<u32>,
}

impl Docker {
    /// Debian's CLI.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { program: DEBIAN.into(), socket: socket.to_owned(), mounts_of: None }
    }

    /// The CLI of trixie, in the mount namespace of its engine.
    #[must_use]
    pub fn of_trixie(socket: &Path, engine: u32) -> Self {
        Self { program: DEBIAN.into(), socket: socket.to_owned(), mounts_of: Some(engine) }
    }

    /// Debian's CLI in the mount namespace of a process.
    #[must_use]
    pub fn beside(socket: &Path, process: u32) -> Self {
        Self { mounts_of: Some(process), ..Self::new(socket) }
    }

    /// Another CLI, in the same place.
    #[must_use]
    pub fn with_program(&self, program: &str) -> Self {
        Self { program: program.into(), ..self.clone() }
    }

    /// The CLIs that are installed: Debian's, and a newer one.
    #[must_use]
    pub fn programs() -> Vec<&'static str> {
        [DEBIAN, NEWER].into_iter().filter(|program| Path::new(program).exists()).collect()
    }

    /// A command of it, not yet started.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = match self.mounts_of {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(arguments);
        self.environment(&mut command);
        command
    }

    fn environment(&self, command: &mut Command) {
        command.env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        // Nothing of the user's settings, and no hints that differ from version to version.
        command.env("DOCKER_CONFIG", "/nonexistent").env("DOCKER_CLI_HINTS", "false").env("LANG", "C");
        command.env_remove("DOCKER_API_VERSION");
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    /// Runs it to its end, with something to read.
    pub fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Output {
        run(&mut self.command(arguments), stdin)
    }

    /// Starts it in the background, with pipes.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the docker CLI can be started")
    }

    /// Runs a shell script in which `docker` is this CLI; `$DOCKER` is it for programs that start programs.
    pub fn script(&self, script: &str, stdin: &[u8]) -> Output {
        let program = self.program.display();
        let prelude = format!("DOCKER={program}\ndocker() {{ $DOCKER \"$@\"; }}\n");
        let mut command = match self.mounts_of {
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg("sh");
                command
            }
            None => Command::new("sh"),
        };
        command.args(["-c", &format!("{prelude}{script}")]);
        self.environment(&mut command);
        run(&mut command, stdin)
    }

    /// Runs a container in the background; its id.
    ///
    /// # Panics
    /// When that fails.
    pub fn start(&self, arguments: &[&str]) -> String {
        self.run(&[&["run", "-d"], arguments].concat()).ok().to_owned()
    }

    /// Removes containers, whatever they are doing. That one is not there is no failure.
    pub fn remove(&self, names: &[&str]) {
        self.run(&[&["rm", "-f", "-v"], names].concat());
    }

    /// A container's inspect.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn inspect(&self, name: &str) -> Value {
        let text = self.run(&["inspect", "--type=container", name]);
        let list: Value = serde_json::from_str(text.ok()).expect("inspect answers JSON");
        list[0].clone()
    }

    /// The address of a container, as clients read it.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        self.inspect(name)["NetworkSettings"]["IPAddress"].as_str().unwrap_or_default().to_owned()
    }
}
