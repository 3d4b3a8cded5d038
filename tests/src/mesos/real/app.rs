//! An app as Marathon describes it, and the task that Marathon makes of it.
//!
//! After Marathon's `TaskBuilder`: what it puts into the environment, and its Docker label. It must never know of Selvedge.

use serde_json::{Value, json};

/// What runs in a container.
#[derive(Debug, Clone, Copy)]
pub enum Program {
    /// `cmd`: a line of shell.
    Shell(&'static str),
    /// `args`.
    Arguments(&'static [&'static str]),
    /// What the image has.
    OfImage,
}

/// An app; fields that it does not name are as [`App::new`] has them.
#[derive(Debug, Clone)]
pub struct App {
    /// Its path: `/shop/db`.
    pub id: String,
    /// The image.
    pub image: &'static str,
    /// `HOST`, `BRIDGE`, `NONE`, or the name of a network that the engine has.
    pub network: &'static str,
    /// What runs.
    pub program: Program,
    /// The user's environment.
    pub env: &'static [(&'static str, &'static str)],
    /// The app's labels, which are not the container's.
    pub labels: &'static [(&'static str, &'static str)],
    /// Options of `docker run`.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Ports in the container that are to be published.
    pub ports: &'static [u16],
    /// Host path and path in the container, read only.
    pub volume: Option<(&'static str, &'static str)>,
    /// Mesos' own check, in its JSON.
    pub health: Option<Value>,
    /// The kill policy's grace period in seconds.
    pub grace: Option<u64>,
}

impl App {
    /// A program on the engine's bridge.
    #[must_use]
    pub fn new(id: &str, program: Program) -> Self {
        Self {
            id: id.to_owned(),
            image: "busybox",
            network: "BRIDGE",
            program,
            env: &[],
            labels: &[],
            parameters: &[],
            ports: &[],
            volume: None,
            health: None,
            grace: None,
        }
    }

    /// How Marathon and Mesos-DNS call it: `db.shop`.
    #[must_use]
    pub fn name(&self) -> String {
        self.id.trim_matches('/').split('/').rev().collect::<Vec<_>>().join(".")
    }

    /// An instance's number makes the id of its task.
    #[must_use]
    pub fn task_id(&self, instance: usize) -> String {
        format!("{}.instance-{instance}._app.1", self.id.trim_matches('/').replace('/', "_"))
    }

    /// The task, on an agent and with a port of that agent.
    #[must_use]
    pub fn task(&self, id: &str, agent: &Value, ports: &[u64]) -> Value {
        let mut task = json!({
            "name": self.name(),
            "task_id": {"value": id},
            "agent_id": agent,
            "resources": resources(ports),
            "command": self.command(id, ports),
            "container": self.container(id, ports),
            "labels": {"labels": pairs(self.labels)},
            "discovery": {"visibility": "FRAMEWORK", "name": self.name()},
        });
        if let Some(health) = &self.health {
            task["health_check"] = health.clone();
        }
        if let Some(grace) = self.grace {
            task["kill_policy"] = json!({"grace_period": {"nanoseconds": grace * 1_000_000_000}});
        }
        task
    }

    fn command(&self, id: &str, ports: &[u64]) -> Value {
        let variables: Vec<Value> = self
            .environment(id, ports)
            .into_iter()
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let environment = json!({"variables": variables});
        match self.program {
            Program::Shell(line) => json!({"environment": environment, "shell": true, "value": line}),
            Program::Arguments(all) => json!({"environment": environment, "shell": false, "arguments": all}),
            Program::OfImage => json!({"environment": environment, "shell": false}),
        }
    }

    fn environment(&self, id: &str, ports: &[u64]) -> Vec<(String, String)> {
        let named = |name: &str| name.to_uppercase().replace(['-', '.', '/'], "_");
        let names: Vec<String> = self.labels.iter().map(|(name, _)| named(name)).collect();
        let numbers: Vec<String> = ports.iter().map(u64::to_string).collect();
        let mut all = vec![
            ("MESOS_TASK_ID".to_owned(), id.to_owned()),
            ("MARATHON_APP_ID".to_owned(), self.id.clone()),
            ("MARATHON_APP_VERSION".to_owned(), "2026-11-30T12:00:00.000Z".to_owned()),
            ("MARATHON_APP_DOCKER_IMAGE".to_owned(), self.image.to_owned()),
            ("MARATHON_APP_RESOURCE_CPUS".to_owned(), CPUS.to_string()),
            ("MARATHON_APP_RESOURCE_MEM".to_owned(), format!("{MEM:.1}")),
            ("MARATHON_APP_LABELS".to_owned(), names.join(" ")),
            ("HOST".to_owned(), "agent".to_owned()),
            ("PORT".to_owned(), numbers.first().cloned().unwrap_or_default()),
            ("PORTS".to_owned(), numbers.join(",")),
        ];
        let label = |(name, value): &(&str, &str)| {
            (format!("MARATHON_APP_LABEL_{}", named(name)), (*value).to_owned())
        };
        all.extend(self.labels.iter().map(label));
        all.extend(numbers.into_iter().enumerate().map(|(at, number)| (format!("PORT{at}"), number)));
        all.extend(self.env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        all
    }

    fn container(&self, id: &str, ports: &[u64]) -> Value {
        let label = format!("MESOS_TASK_ID={id}");
        let parameters = [&[("label", label.as_str())][..], self.parameters].concat();
        let is_user = !matches!(self.network, "HOST" | "BRIDGE" | "NONE");
        let mut docker = json!({
            "image": self.image,
            "network": if is_user { "USER" } else { self.network },
            "privileged": false,
            "force_pull_image": false,
            "parameters": pairs(&parameters),
        });
        if !self.ports.is_empty() {
            let mapping = |(host, inner): (&u64, &u16)| json!({"host_port": host, "container_port": inner, "protocol": "tcp"});
            docker["port_mappings"] = ports.iter().zip(self.ports).map(mapping).collect();
        }
        let mut container = json!({"type": "DOCKER", "docker": docker});
        if is_user {
            container["network_infos"] = json!([{"name": self.network}]);
        }
        if let Some((host, inner)) = self.volume {
            container["volumes"] = json!([{"host_path": host, "container_path": inner, "mode": "RO"}]);
        }
        container
    }
}

/// What each task takes of its agent.
const CPUS: f64 = 0.1;
const MEM: f64 = 32.0;

fn resources(ports: &[u64]) -> Value {
    let ranges: Vec<Value> = ports.iter().map(|port| json!({"begin": port, "end": port})).collect();
    let scalar = |name: &str, value: f64| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}, "allocation_info": {"role": "*"}});
    let ports = json!({"name": "ports", "type": "RANGES", "ranges": {"range": ranges}, "allocation_info": {"role": "*"}});
    json!([scalar("cpus", CPUS), scalar("mem", MEM), ports])
}

fn pairs(all: &[(&str, &str)]) -> Vec<Value> {
    all.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
}
