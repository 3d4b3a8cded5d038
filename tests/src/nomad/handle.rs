//! A task that runs: its logs, its end, signals, stops, checks in it, and its removal.

use std::io::Read;
use std::net::Shutdown;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, Failure, id};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// A task that runs, or has ended.
#[derive(Debug)]
pub struct Handle {
    /// Its container.
    pub id: String,
    client: Arc<Client>,
    infinite: Arc<Client>,
    ended: Mutex<Option<mpsc::Receiver<Result<i64, Failure>>>>,
    logs: Mutex<Option<JoinHandle<Result<Output, Failure>>>>,
}

/// What a program wrote: its output and its errors.
pub type Output = (Vec<u8>, Vec<u8>);

impl Handle {
    pub(super) fn follow((client, infinite): (&Arc<Client>, &Arc<Client>), socket: &Path, id: &str) -> Self {
        // The logger is a process of its own, with a client of its own.
        let logger = Client::new(socket, None);
        let of = id.to_owned();
        let logs = std::thread::spawn(move || collect(&logger, &of));
        let (client, infinite) = (Arc::clone(client), Arc::clone(infinite));
        let (tell, ended) = mpsc::channel();
        let (waits, stops, of) = (Arc::clone(&infinite), Arc::clone(&client), id.to_owned());
        std::thread::spawn(move || tell.send(run(&waits, &stops, &of)));
        Self {
            id: id.to_owned(),
            client,
            infinite,
            ended: Mutex::new(Some(ended)),
            logs: Mutex::new(Some(logs)),
        }
    }

    /// Its exit code; waits for it.
    ///
    /// # Errors
    /// The wait broke.
    pub fn code(&self) -> Result<i64, Failure> {
        self.code_within(Duration::from_secs(120)).unwrap_or_else(|| Err("it does not end".to_owned()))
    }

    fn code_within(&self, limit: Duration) -> Option<Result<i64, Failure>> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.as_ref()?.recv_timeout(limit).ok()
    }

    /// All that it wrote; waits for its end.
    ///
    /// # Errors
    /// The stream broke.
    pub fn output(&self) -> Result<Output, Failure> {
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner).take();
        logs.map_or_else(
            || Err("taken".to_owned()),
            |logs| logs.join().unwrap_or_else(|_| Err("the logger panicked".to_owned())),
        )
    }

    /// Stops it (`kill_timeout`, and `kill_signal` if one is set); its exit code.
    ///
    /// # Errors
    /// The stop or the wait failed.
    pub fn stop(&self, timeout: Duration, signal: Option<&str>) -> Result<i64, Failure> {
        let Some(signal) = signal else {
            let path = format!("/containers/{}/stop?t={}", self.id, timeout.as_secs());
            gone_is_fine(self.infinite.call("POST", &path, None))?;
            return self.code();
        };
        self.signal(signal)?;
        if let Some(code) = self.code_within(timeout) {
            return code;
        }
        gone_is_fine(self.client.call("POST", &format!("/containers/{}/stop?t=0", self.id), None))?;
        self.code()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The engine refused.
    pub fn signal(&self, signal: &str) -> Result<(), Failure> {
        let path = format!("/containers/{}/kill?signal={signal}", self.id);
        gone_is_fine(self.client.call("POST", &path, None))
    }

    /// Removes it, as `DestroyTask`.
    ///
    /// # Errors
    /// It runs, or the inspect failed.
    pub fn destroy(&self) -> Result<(), Failure> {
        let found = self.client.call("GET", &format!("/containers/{}/json", self.id), None)?;
        if found["State"]["Running"] == true {
            return Err("it still runs".to_owned());
        }
        self.client.call("DELETE", &format!("/containers/{}?force=1", self.id), None).map(drop)
    }

    /// A check of type `script`: its exit code and its output.
    ///
    /// # Errors
    /// A call failed, or the stream broke.
    pub fn check(&self, command: &[&str]) -> Result<(i64, Output), Failure> {
        let wanted = json!({
            "AttachStdin": false, "AttachStdout": true, "AttachStderr": true, "Tty": false, "Cmd": command,
        });
        self.exec(&wanted, None)
    }

    /// `nomad alloc exec`: the same with input.
    ///
    /// # Errors
    /// As [`Handle::check`].
    pub fn exec_with(&self, command: &[&str], input: &[u8]) -> Result<(i64, Output), Failure> {
        let wanted = json!({
            "AttachStdin": true, "AttachStdout": true, "AttachStderr": true, "Tty": false, "Cmd": command,
        });
        self.exec(&wanted, Some(input))
    }

    fn exec(&self, wanted: &Value, input: Option<&[u8]>) -> Result<(i64, Output), Failure> {
        use std::io::Write;
        let made = self.client.call("POST", &format!("/containers/{}/exec", self.id), Some(wanted))?;
        let id = id(&made);
        let begin = json!({"Detach": false, "Tty": false});
        let mut taken = self.client.stream("POST", &format!("/exec/{id}/start"), Some(&begin), UPGRADE)?;
        if let (Some(input), Some(mut connection)) = (input, taken.body.connection()) {
            connection.write_all(input).map_err(|error| error.to_string())?;
            connection.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
        }
        let output = demultiplexed(&mut taken.body)?;
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let found = self.client.call("GET", &format!("/exec/{id}/json"), None)?;
            if found["Running"] == false || Instant::now() > end {
                return Ok((found["ExitCode"].as_i64().unwrap_or(999), output));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// One sample of what it uses.
    ///
    /// # Errors
    /// The call failed, or what came is none.
    pub fn stats(&self) -> Result<(), Failure> {
        let sample = self.client.call("GET", &format!("/containers/{}/stats?stream=0", self.id), None)?;
        if sample["read"].is_string() { Ok(()) } else { Err(format!("no sample: {sample}")) }
    }
}

fn gone_is_fine(answer: Result<Value, Failure>) -> Result<(), Failure> {
    match answer {
        Err(failure) if !failure.starts_with("404") => Err(failure),
        _ => Ok(()),
    }
}

/// Waits for a task's end, inspects it, and stops it in case that the wait was wrong.
fn run(infinite: &Client, client: &Client, id: &str) -> Result<i64, Failure> {
    let waited = infinite.call("POST", &format!("/containers/{id}/wait?condition=not-running"), None)?;
    let _ = client.call("GET", &format!("/containers/{id}/json"), None);
    let _ = client.call("POST", &format!("/containers/{id}/stop?t=0"), None);
    waited["StatusCode"].as_i64().ok_or_else(|| format!("no status code: {waited}"))
}

/// The logger: from the beginning to the end of the stream; then it asks whether the task has ended.
fn collect(client: &Client, id: &str) -> Result<Output, Failure> {
    let path = format!("/containers/{id}/logs?follow=1&since=0.000000000&stderr=1&stdout=1");
    let mut logs = client.stream("GET", &path, None, "")?;
    let output = demultiplexed(&mut logs.body)?;
    match client.call("GET", &format!("/containers/{id}/json"), None) {
        Ok(found) if found["State"]["Running"] == true => {
            Err("the stream of logs ended before its task".to_owned())
        }
        _ => Ok(output),
    }
}

/// Takes frames apart, as moby's `stdcopy` does.
fn demultiplexed(from: &mut impl Read) -> Result<Output, Failure> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut head = [0; 8];
    loop {
        match read_whole(from, &mut head)? {
            0 => return Ok((out, err)),
            8 => {}
            some => return Err(format!("the stream broke in a frame's head, {some} bytes in")),
        }
        let mut frame = vec![0; u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize];
        let read = read_whole(from, &mut frame)?;
        if read < frame.len() {
            return Err(format!("the stream broke in a frame, {read} bytes in"));
        }
        match head[0] {
            0 | 1 => out.extend(frame),
            2 => err.extend(frame),
            other => return Err(format!("a frame of stream {other}")),
        }
    }
}

fn read_whole(from: &mut impl Read, into: &mut [u8]) -> Result<usize, Failure> {
    let mut read = 0;
    while read < into.len() {
        match from.read(&mut into[read..]) {
            Ok(0) => break,
            Ok(some) => read += some,
            Err(error) => return Err(format!("the stream broke: {:?}", error.kind())),
        }
    }
    Ok(read)
}
