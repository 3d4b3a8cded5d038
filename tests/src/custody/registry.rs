//! A registry on the host of a scene, with one image that the engine does not have: Debian's docker-registry. It ends with the
//! host's directory, whose name is on its command line.

use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::chance::Chance;
use crate::engine::Engine;
use crate::host::Host;
use crate::wait::until_true;

/// The image, as the engine is asked for it. An address of 127.0.0.0/8 needs no TLS.
pub const IMAGE: &str = "127.0.0.1:5000/pulled";
const START: Duration = Duration::from_secs(60);
/// What the image holds: more than goes into the buffers on the way.
const BYTES: usize = 5_000_000;

/// The registry of a scene, once it has been asked for.
#[derive(Debug, Default)]
pub struct Registry {
    id: OnceLock<String>,
    turn: Mutex<()>,
}

impl Registry {
    /// The id of the image, when it can be pulled; and the turn of the one that pulls it.
    ///
    /// # Panics
    /// When it cannot be had.
    pub fn turn(&self, host: &Host, engine: &Engine) -> (MutexGuard<'_, ()>, &str) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let id = self.id.get_or_init(|| {
            start(host);
            push(host, engine)
        });
        (turn, id)
    }
}

fn start(host: &Host) {
    let config = host.path("registry.yml");
    let data = host.path("registry").display().to_string();
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {data}\nhttp:\n  addr: 127.0.0.1:5000\n"
    );
    std::fs::write(&config, text).expect("a file can be written");
    let mut command = host.command("docker-registry");
    command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.spawn().expect("docker-registry is installed"));
    let up = || host.sh("curl -sf http://127.0.0.1:5000/v2/").code == 0;
    until_true("the registry serves", START, up);
}

/// Past Selvedge: what is tested is how it comes back.
fn push(host: &Host, engine: &Engine) -> String {
    let (docker, file) = (engine.docker(), host.path("pulled"));
    let mut chance = Chance::of(7);
    let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| chance.draw().to_be_bytes()).collect();
    std::fs::create_dir_all(&file).expect("a directory can be made");
    std::fs::write(file.join("content"), bytes).expect("a file can be written");
    let archive = host.path("pulled.tar").display().to_string();
    host.sh(&format!("tar -C {} -cf {archive} .", file.display())).ok();
    docker.run(&["import", &archive, IMAGE]).ok();
    let id = docker.run(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).ok().to_owned();
    docker.run(&["push", IMAGE]).ok();
    docker.run(&["rmi", IMAGE]).ok();
    id
}
