//! What Nomad tells its driver of a task, and the body of the create that the driver makes of it.

use serde_json::{Value, json};

/// The image of the tasks; not `latest`, which Nomad pulls each time.
pub const IMAGE: &str = "nomad-task:1";
/// The image of the pause containers (`infra_image`).
pub const PAUSE: &str = "nomad-pause:3.3";

/// What moby's client writes of a `Config` in which nothing is set.
const BODY: &str = r#"{"Hostname":"","Domainname":"","User":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,
"ExposedPorts":{},"Tty":false,"OpenStdin":false,"StdinOnce":false,"Volumes":null,"WorkingDir":"","Entrypoint":null}"#;
/// And of a `HostConfig` with what the driver always sets.
const HOST: &str = r#"{"ContainerIDFile":"","LogConfig":{"Type":"json-file","Config":{"max-file":"2","max-size":"2m"}},
"PortBindings":{},"RestartPolicy":{"Name":"","MaximumRetryCount":0},"AutoRemove":false,"VolumeDriver":"","VolumesFrom":null,
"ConsoleSize":[0,0],"CapAdd":null,"CapDrop":["AUDIT_WRITE","MKNOD"],"CgroupnsMode":"","Dns":null,"DnsOptions":null,
"DnsSearch":null,"ExtraHosts":null,"GroupAdd":null,"IpcMode":"","Cgroup":"","Links":null,"OomScoreAdj":0,"PidMode":"",
"Privileged":false,"PublishAllPorts":false,"ReadonlyRootfs":false,"SecurityOpt":null,"UTSMode":"","UsernsMode":"","ShmSize":0,
"Isolation":"","CpuShares":100,"Memory":67108864,"PidsLimit":-1,"MemorySwap":67108864,"Ulimits":[],"MaskedPaths":null,
"ReadonlyPaths":null}"#;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("it is JSON")
}

/// A task of a job.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// The allocation.
    pub alloc: String,
    /// The job.
    pub job: String,
    /// The namespace.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// `command` and `args` of its `config`.
    pub command: Vec<String>,
    /// `labels` of its `config`.
    pub labels: Value,
    /// `network_mode` of its `config`; none: the group's, or the engine's own.
    pub network_mode: Option<String>,
    /// The pause container of its group, if that is in bridge mode.
    pub group: Option<String>,
    /// Where Nomad keeps its directories.
    pub dir: String,
}

impl Task {
    /// A task that runs a line of shell.
    #[must_use]
    pub fn of(alloc: &str, name: &str, line: &str) -> Self {
        Self {
            name: name.to_owned(),
            alloc: alloc.to_owned(),
            job: "shop".to_owned(),
            namespace: "default".to_owned(),
            image: IMAGE.to_owned(),
            command: ["sh", "-c", line].map(str::to_owned).to_vec(),
            labels: json!({}),
            ..Self::default()
        }
    }

    /// What its container is called.
    #[must_use]
    pub fn container(&self) -> String {
        format!("{}-{}", self.name, self.alloc)
    }

    fn env(&self) -> Vec<String> {
        let pairs = [
            ("NOMAD_ALLOC_DIR", "/alloc"),
            ("NOMAD_ALLOC_ID", &self.alloc),
            ("NOMAD_ALLOC_INDEX", "0"),
            ("NOMAD_ALLOC_NAME", &format!("{}.front[0]", self.job)),
            ("NOMAD_CPU_LIMIT", "100"),
            ("NOMAD_DC", "dc1"),
            ("NOMAD_GROUP_NAME", "front"),
            ("NOMAD_JOB_ID", &self.job),
            ("NOMAD_JOB_NAME", &self.job),
            ("NOMAD_MEMORY_LIMIT", "64"),
            ("NOMAD_NAMESPACE", &self.namespace),
            ("NOMAD_REGION", "global"),
            ("NOMAD_SECRETS_DIR", "/secrets"),
            ("NOMAD_SHORT_ALLOC_ID", self.alloc.get(..8).unwrap_or(&self.alloc)),
            ("NOMAD_TASK_DIR", "/local"),
            ("NOMAD_TASK_NAME", &self.name),
        ];
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn mode(&self) -> String {
        let group = self.group.as_ref().map(|id| format!("container:{id}"));
        self.network_mode.clone().or(group).unwrap_or_else(|| "default".to_owned())
    }

    /// The create's body.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = parsed(BODY);
        let mut labels = self.labels.clone();
        labels["com.hashicorp.nomad.alloc_id"] = self.alloc.clone().into();
        for (key, value) in [
            ("Env", json!(self.env())),
            ("Cmd", json!(self.command)),
            ("Image", json!(self.image)),
            ("Labels", labels),
            ("HostConfig", self.host_config()),
        ] {
            body[key] = value;
        }
        body
    }

    fn host_config(&self) -> Value {
        let mut host = parsed(HOST);
        let dir = &self.dir;
        let binds = [
            ("alloc", "/alloc"),
            ("local", "/local"),
            ("secrets", "/secrets"),
            ("alloc/logs", "/alloc/logs:ro"),
        ];
        host["Binds"] = binds.map(|(from, to)| format!("{dir}/{from}:{to}")).to_vec().into();
        host["NetworkMode"] = self.mode().into();
        host
    }

    /// The create's body of a group's pause container.
    #[must_use]
    pub fn pause(alloc: &str) -> Value {
        json!({
            "Hostname": "", "Image": PAUSE, "Labels": {"com.hashicorp.nomad.alloc_id": alloc},
            "HostConfig": {
                "NetworkMode": "none", "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0},
            },
        })
    }
}
