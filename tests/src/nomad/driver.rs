//! The driver's side of an allocation: the group's network, and a task's start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Failure, id};
use super::handle::Handle;
use super::task::{PAUSE, Task};

/// The driver, which all allocations of an agent share.
#[derive(Debug)]
pub struct Driver {
    /// For all calls that have an end.
    pub(super) client: Arc<Client>,
    /// For those that may take for ever.
    pub(super) infinite: Arc<Client>,
    socket: PathBuf,
}

impl Driver {
    /// A driver whose `endpoint` is this socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            client: Arc::new(Client::new(socket, Some(Duration::from_secs(300)))),
            infinite: Arc::new(Client::new(socket, None)),
            socket: socket.to_owned(),
        }
    }

    /// What it asks every 30 seconds, to say that it is healthy.
    ///
    /// # Errors
    /// A call failed.
    pub fn fingerprint(&self) -> Result<(), Failure> {
        self.client.call("GET", "/version", None)?;
        self.client.call("GET", "/networks", None)?;
        self.client.call("GET", "/info", None).map(drop)
    }

    /// The pause container of a group in bridge mode; its id.
    ///
    /// # Errors
    /// A call failed.
    pub fn create_network(&self, alloc: &str) -> Result<String, Failure> {
        self.client.call("GET", &format!("/images/{}/json", PAUSE), None)?;
        let name = format!("nomad_init_{alloc}");
        if let Some(there) = self.by_name(&name)?.filter(|there| there["State"]["Running"] == true) {
            return Ok(id(&there));
        }
        let made = self.create(&name, &Task::pause(alloc))?;
        self.client.call("POST", &format!("/containers/{}/start", id(&made)), None)?;
        Ok(id(&self.inspect(&id(&made))?))
    }

    /// The end of it.
    ///
    /// # Errors
    /// It could not be removed.
    pub fn destroy_network(&self, pause: &str) -> Result<(), Failure> {
        // What goes wrong with the stop is only logged.
        let _ = self.client.call("POST", &format!("/containers/{pause}/stop?t=1"), None);
        self.client.call("DELETE", &format!("/containers/{pause}?force=1"), None).map(drop)
    }

    /// Starts a task, and follows it.
    ///
    /// # Errors
    /// As Nomad shows it in the task's events.
    pub fn start(&self, task: &Task) -> Result<Handle, Failure> {
        self.client.call("GET", "/info", None)?;
        self.image(&task.image)?;
        self.client.call("GET", "/version", None)?;
        let made = self.create(&task.container(), &task.body())?;
        let id = id(&made);
        if made["State"]["Running"] != true {
            let started = self.client.call("POST", &format!("/containers/{id}/start"), None);
            if let Err(failure) = started.and_then(|_| self.inspect(&id)) {
                let _ = self.client.call("DELETE", &format!("/containers/{id}?force=1"), None);
                return Err(failure);
            }
        }
        Ok(Handle::follow((&self.client, &self.infinite), &self.socket, &id))
    }

    /// A tag other than `latest` that is there is not pulled.
    fn image(&self, image: &str) -> Result<(), Failure> {
        let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        if tag != "latest" && self.client.call("GET", &format!("/images/{image}/json"), None).is_ok() {
            return Ok(());
        }
        let path = format!("/images/create?fromImage={repository}&tag={tag}");
        let pulled = self.client.call("POST", &path, None)?;
        match pulled.as_str().is_some_and(|text| text.contains("errorDetail")) {
            true => Err("the pull broke off".to_owned()),
            false => self.client.call("GET", &format!("/images/{image}/json"), None).map(drop),
        }
    }

    fn create(&self, name: &str, body: &Value) -> Result<Value, Failure> {
        for _ in 0..5 {
            match self.client.call("POST", &format!("/containers/create?name={name}"), Some(body)) {
                Ok(_) => return self.by_name(name)?.ok_or_else(|| "made, and not there".to_owned()),
                Err(failure) if failure.starts_with("409") => {}
                Err(failure) => return Err(failure),
            }
            if let Some(runs) = self.purge(name)? {
                return Ok(runs);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("409: the name stays in use".to_owned())
    }

    /// A container of that name that runs is taken as it is; one that does not is removed.
    fn purge(&self, name: &str) -> Result<Option<Value>, Failure> {
        let Some(there) = self.by_name(name)? else { return Ok(None) };
        if there["State"]["Running"] == true {
            return Ok(Some(there));
        }
        self.client.call("DELETE", &format!("/containers/{}?force=1", id(&there)), None)?;
        Ok(None)
    }

    /// The driver lists all and looks for the name itself.
    fn by_name(&self, name: &str) -> Result<Option<Value>, Failure> {
        let listed = self.client.call("GET", "/containers/json?all=1", None)?;
        let has_name = |container: &&Value| {
            let names = container["Names"].as_array().into_iter().flatten();
            names.into_iter().any(|own| own.as_str().is_some_and(|own| own.trim_start_matches('/') == name))
        };
        let found = listed.as_array().into_iter().flatten().find(has_name);
        found.map(|container| self.inspect(&id(container))).transpose()
    }

    fn inspect(&self, id: &str) -> Result<Value, Failure> {
        self.client.call("GET", &format!("/containers/{id}/json"), None)
    }
}
