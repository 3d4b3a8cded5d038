//! A volume plugin that takes its time to make a volume: what an engine's create waits for. Must never keep anything: each
//! volume is an empty directory.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

/// Where engines look for plugins.
const FOLDER: &str = "/run/docker/plugins";

/// A plugin that serves as long as the test process lives; engines find it by its name until it is dropped.
#[derive(Debug)]
pub struct Plugin {
    /// The name of its driver.
    pub name: String,
    socket: PathBuf,
    made: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Plugin {
    /// One that takes this long to make a volume, below this directory.
    ///
    /// # Panics
    /// When it cannot listen.
    #[must_use]
    pub fn start(dir: &Path, takes: Duration) -> Self {
        let name = dir.file_name().expect("a directory with a name").to_string_lossy().into_owned();
        std::fs::create_dir_all(FOLDER).expect("a directory can be made");
        let socket = Path::new(FOLDER).join(format!("{name}.sock"));
        let listener = UnixListener::bind(&socket).expect("a free path");
        let made: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let (counts, dir) = (Arc::clone(&made), dir.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (counts, dir) = (Arc::clone(&counts), dir.clone());
                std::thread::spawn(move || serve(stream, &counts, (&dir, takes)));
            }
        });
        Self { name, socket, made }
    }

    /// How often it was asked to make this volume.
    #[must_use]
    pub fn made(&self, volume: &str) -> usize {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(volume).copied().unwrap_or_default()
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Answers the requests of one connection.
fn serve(mut stream: UnixStream, made: &Mutex<BTreeMap<String, usize>>, (dir, takes): (&Path, Duration)) {
    let mut unread = Vec::new();
    while let Some((call, body)) = request(&mut stream, &mut unread) {
        let volume = body["Name"].as_str().unwrap_or_default().to_owned();
        let mountpoint = dir.join("volumes").join(&volume);
        if call == "/VolumeDriver.Create" {
            *made.lock().unwrap_or_else(PoisonError::into_inner).entry(volume.clone()).or_default() += 1;
            std::thread::sleep(takes);
            let _ = std::fs::create_dir_all(&mountpoint);
        }
        let told = answer(&call, &volume, &mountpoint).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            told.len()
        );
        if stream.write_all(format!("{head}{told}").as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(call: &str, volume: &str, mountpoint: &Path) -> Value {
    match call {
        "/Plugin.Activate" => json!({"Implements": ["VolumeDriver"]}),
        "/VolumeDriver.Capabilities" => json!({"Capabilities": {"Scope": "local"}}),
        "/VolumeDriver.Get" if !mountpoint.exists() => json!({"Err": "no such volume"}),
        "/VolumeDriver.Get" => json!({"Volume": {"Name": volume, "Mountpoint": mountpoint}, "Err": ""}),
        "/VolumeDriver.List" => json!({"Volumes": [], "Err": ""}),
        _ => json!({"Mountpoint": mountpoint, "Err": ""}),
    }
}

/// The path and the body of the next request.
fn request(stream: &mut UnixStream, unread: &mut Vec<u8>) -> Option<(String, Value)> {
    let mut part = [0; 4096];
    loop {
        if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&unread[..end]).into_owned();
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
            });
            let whole = end + 4 + length.unwrap_or(0);
            if unread.len() >= whole {
                let body = serde_json::from_slice(&unread[end + 4..whole]).unwrap_or_default();
                unread.drain(..whole);
                return Some((head.split_whitespace().nth(1)?.to_owned(), body));
            }
        }
        let length = stream.read(&mut part).ok().filter(|length| *length > 0)?;
        unread.extend_from_slice(&part[..length]);
    }
}
