//! Lists an engine's containers, with their labels.
//!
//! `cargo run -p selvedge-engine --example list /run/docker.sock`
//! Must never change anything in the engine.

use std::path::Path;

use selvedge_engine::client::Engine;
use selvedge_engine::model::{Listed, short};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args().nth(1).ok_or("usage: list SOCKET")?;
    let engine = Engine::new(Path::new(&socket));
    for container in engine.get::<Vec<Listed>>("/containers/json?all=1").await? {
        println!("{} {} {} {:?}", short(&container.id), container.name(), container.state, container.labels);
    }
    Ok(())
}
