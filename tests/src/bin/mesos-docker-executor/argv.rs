//! `docker run` as Mesos writes it (`Docker::run` in `src/docker/docker.cpp`), argument for argument and in its order.
//! It must never add an option of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::flags::Flags;

/// What comes before every verb.
pub(crate) fn docker(flags: &Flags) -> Vec<String> {
    vec![flags.get("docker").to_owned(), "-H".to_owned(), format!("unix://{}", flags.get("docker_socket"))]
}

/// The whole command line.
pub(crate) fn run(task: &Value, flags: &Flags) -> Vec<String> {
    let (container, command) = (&task["container"], &task["command"]);
    let options = &container["docker"];
    let mut all = docker(flags);
    all.push("run".to_owned());
    if options["privileged"] == true {
        all.push("--privileged".to_owned());
    }
    all.extend(limits(&task["resources"]));
    all.extend(
        environment(task, flags)
            .into_iter()
            .flat_map(|(name, value)| ["-e".to_owned(), format!("{name}={value}")]),
    );
    all.extend(volumes(container, flags).into_iter().flat_map(|volume| ["-v".to_owned(), volume]));
    all.extend(["--net".to_owned(), network(container)]);
    if let Some(hostname) = container["hostname"].as_str() {
        all.extend(["--hostname".to_owned(), hostname.to_owned()]);
    }
    all.extend(list(&options["port_mappings"]).flat_map(|mapping| ["-p".to_owned(), port(mapping)]));
    let is_shell = command["shell"].as_bool().unwrap_or(true);
    if is_shell {
        all.extend(["--entrypoint", "/bin/sh"].map(str::to_owned));
    }
    all.extend(["--name".to_owned(), flags.get("container").to_owned()]);
    all.extend(
        list(&options["parameters"]).map(|one| format!("--{}={}", text(&one["key"]), text(&one["value"]))),
    );
    all.push(text(&options["image"]));
    if is_shell {
        all.push("-c".to_owned());
    }
    all.extend(command["value"].as_str().map(str::to_owned));
    if !is_shell {
        all.extend(list(&command["arguments"]).map(text));
    }
    all
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Shares of a CPU and bytes of memory, with the least that Mesos gives.
fn limits(resources: &Value) -> Vec<String> {
    let sum = |name: &str| {
        let scalars = list(resources).filter(|one| one["name"] == name);
        scalars.filter_map(|one| one["scalar"]["value"].as_f64()).reduce(|a, b| a + b)
    };
    let shares = sum("cpus")
        .map(|cpus| ["--cpu-shares".to_owned(), format!("{:.0}", (cpus * 1024.0).floor().max(2.0))]);
    let memory = sum("mem").map(|mem| ["--memory".to_owned(), format!("{:.0}", mem.max(32.0) * 1_048_576.0)]);
    shares.into_iter().chain(memory).flatten().collect()
}

/// The task's own variables, those of the agent's modules before them, and Mesos' three.
fn environment(task: &Value, flags: &Flags) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = list(&task["command"]["environment"]["variables"])
        .map(|one| (text(&one["name"]), text(&one["value"])))
        .collect();
    if let Ok(Value::Object(map)) = serde_json::from_str(flags.get("task_environment")) {
        all.extend(map.into_iter().map(|(name, value)| (name, text(&value))));
    }
    let role =
        list(&task["resources"]).find_map(|one| one["allocation_info"]["role"].as_str()).unwrap_or("*");
    for (name, value) in [
        ("MESOS_SANDBOX", flags.get("mapped_directory")),
        ("MESOS_CONTAINER_NAME", flags.get("container")),
        ("MESOS_ALLOCATION_ROLE", role),
    ] {
        all.insert(name.to_owned(), value.to_owned());
    }
    all
}

/// The task's volumes, relative ones below the sandbox, and then the sandbox itself.
fn volumes(container: &Value, flags: &Flags) -> Vec<String> {
    let below = |folder: &str, path: &Value| {
        let path = text(path);
        if path.starts_with('/') { path } else { format!("{folder}/{path}") }
    };
    let (sandbox, mapped) = (flags.get("sandbox_directory"), flags.get("mapped_directory"));
    let volume = |one: &Value| {
        let mode = text(&one["mode"]).to_lowercase();
        format!("{}:{}:{mode}", below(sandbox, &one["host_path"]), below(mapped, &one["container_path"]))
    };
    list(&container["volumes"]).map(volume).chain([format!("{sandbox}:{mapped}")]).collect()
}

fn network(container: &Value) -> String {
    match container["docker"]["network"].as_str() {
        Some("USER") => text(&container["network_infos"][0]["name"]),
        Some(other) => other.to_lowercase(),
        None => "host".to_owned(),
    }
}

fn port(mapping: &Value) -> String {
    let protocol = mapping["protocol"].as_str().map(|protocol| format!("/{}", protocol.to_lowercase()));
    format!("{}:{}{}", mapping["host_port"], mapping["container_port"], protocol.unwrap_or_default())
}
