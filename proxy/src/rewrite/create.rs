//! `POST /containers/create`: decides whether the container gets a wire, and writes all that its start needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use selvedge_registry::allow;
use selvedge_registry::record::NamedPort;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::labels::{self, Wanted, Wishes};
use super::{Request, weave};
use crate::docker::engine::EngineError;
use crate::docker::error::Refusal;
use crate::docker::life::moment;
use crate::docker::model::{self, short};
use crate::docker::object::{BodyError, Object};
use crate::front::message::Answer;
use crate::naming;
use crate::note::{Kept, LABEL, Note, Original};
use crate::route::percent_encode;
use crate::services;
use crate::tenant;
use crate::worker::Worker;

mod address;
mod command;
use address::take_address;
use command::{Command, without_wait};

const TOP: &[&str] = &[
    "Image",
    "Entrypoint",
    "Cmd",
    "Env",
    "Labels",
    "Hostname",
    "Domainname",
    "ExposedPorts",
    "HostConfig",
    "NetworkingConfig",
];
const HOST: &[&str] =
    &["NetworkMode", "Dns", "DnsSearch", "DnsOptions", "Mounts", "Binds", "Tmpfs", "UTSMode", "VolumesFrom"];

/// Where `wait` is mounted: /dev is a tmpfs, so nothing of it shows in `docker diff` or in a committed image.
const WAIT_IN_DEV: &str = "/dev/.selvedge-wait";
/// With the user's own mount over /dev our mount point would be a file in the host's /dev.
const WAIT_ELSEWHERE: &str = "/.selvedge-wait";

/// A create's body, understood.
#[derive(Debug)]
struct Body {
    top: Object,
    host: Object,
    labels: BTreeMap<String, String>,
    wishes: Wishes,
    env: Vec<String>,
}

/// Answers a create.
pub(crate) async fn answer(worker: &Worker, request: &Request<'_>) -> Result<Answer, Refusal> {
    if matches!(request.body.trim_ascii(), b"" | b"null") {
        return request.ask(worker, request.body).await;
    }
    if request.asked.again
        && let Some(answer) = made_before(worker, request).await?
    {
        return Ok(answer);
    }
    let mut body = Body::read(request.body)?;
    let image = image(worker, &body).await?;
    let wanted = wants_wire(&body)?;
    if wanted && let Some(value) = body.env(weave::VARIABLE).map(str::to_owned) {
        let refuse = |why| Refusal::new(400, format!("{}={value:?}: {why}", weave::VARIABLE));
        weave::take_in(&mut body.wishes, &value).map_err(refuse)?;
    }
    let Some(config) = image else { return request.ask(worker, request.body).await };
    let command = Command::merge(&body, &config)?;
    if !wanted || command.is_empty() {
        return without_wire(worker, request, body, &config, command).await;
    }
    with_wire(worker, request, body, (command, &config)).await
}

/// The answer of a create that is asked again and has been done: by its own number, or, where there is no wire, by a
/// container of that name which is no older than the request.
async fn made_before(worker: &Worker, request: &Request<'_>) -> Result<Option<Answer>, Refusal> {
    // What an engine was told by a worker that died may not be done yet.
    tokio::time::sleep(STILL_MADE).await;
    let broke_off = |error: EngineError| Refusal::new(502, format!("the engine broke off: {error}"));
    let filters = percent_encode(&format!("{{\"label\":[{LABEL:?}]}}"));
    let path = format!("/containers/json?all=1&filters={filters}");
    let listed: Vec<model::Listed> = worker.engine.get(&path).await.map_err(broke_off)?;
    for container in listed {
        let labels = container.labels.clone().unwrap_or_default();
        if Note::read(&labels).is_some_and(|note| note.asked == request.asked.when) {
            worker.book.learn_labels(&container.id, container.name(), &labels);
            return Ok(Some(made(&container.id)));
        }
    }
    let Some(name) = request.query_value("name").filter(|name| !name.is_empty()) else { return Ok(None) };
    match worker.engine.inspect(&name).await {
        Ok(found) if moment(&found.created) >= request.asked.when => {
            worker.book.learn(&found);
            Ok(Some(made(&found.id)))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(broke_off(error)),
    }
}

const STILL_MADE: Duration = Duration::from_millis(250);

fn made(id: &str) -> Answer {
    let body = serde_json::json!({"Id": id, "Warnings": []});
    Answer::json(201, format!("{body}\n").into_bytes())
}

impl Body {
    fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut top = Object::parse(bytes)?;
        top.settle(TOP)?;
        let mut host = top.get::<Object>("HostConfig")?.unwrap_or_default();
        host.settle(HOST)?;
        let raw = top.get::<Object>("Labels")?.unwrap_or_default();
        let mut labels = BTreeMap::new();
        for (key, _) in raw.iter() {
            let value = raw.get::<String>(key)?.unwrap_or_default();
            if labels.insert(key.to_owned(), value).is_some() && key.starts_with("selvedge.") {
                return Err(BodyError::Twice(key.to_owned()).into());
            }
        }
        let env: Vec<String> = top.get("Env")?.unwrap_or_default();
        let wishes = labels::read(&labels, &env)?;
        Ok(Self { top, host, labels, wishes, env })
    }

    /// The value of an environment variable; the last one counts, as for the program.
    fn env(&self, key: &str) -> Option<&str> {
        self.env
            .iter()
            .rev()
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
    }
}

/// The image's config; `None` when there is no such image, which the engine shall say in its own words.
async fn image(worker: &Worker, body: &Body) -> Result<Option<model::Config>, Refusal> {
    let Some(name) = body.top.get::<String>("Image")?.filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    match worker.engine.get::<model::Image>(&format!("/images/{}/json", percent_encode(&name))).await {
        Ok(image) => Ok(Some(image.config.unwrap_or_default())),
        Err(EngineError::Refused { .. }) => Ok(None),
        Err(error) => Err(Refusal::new(502, format!("the engine broke off: {error}"))),
    }
}

fn wants_wire(body: &Body) -> Result<bool, Refusal> {
    let wishes = &body.wishes;
    let mode = body.host.get::<String>("NetworkMode")?.unwrap_or_default();
    let never = mode == "host" || mode.starts_with("container:");
    match wishes.network {
        Some(Wanted::None) => Ok(false),
        Some(Wanted::Default) if never => Err(Refusal::new(
            400,
            format!(
                "label selvedge.network=default: a container with network mode {mode:?} has no network of its own"
            ),
        )),
        Some(Wanted::Default) => Ok(true),
        None if weave::is_none(body.env(weave::VARIABLE)) => Ok(false),
        None => {
            let wire = !never && matches!(mode.as_str(), "" | "default" | "bridge" | "none");
            match wishes.address {
                Some(_) if !wire => Err(Refusal::new(
                    400,
                    format!("label selvedge.ip: a container with network mode {mode:?} gets no wire"),
                )),
                None if !wire && !wishes.vips.is_empty() => Err(Refusal::new(
                    400,
                    format!("label selvedge.vip: a container with network mode {mode:?} gets no wire"),
                )),
                _ => Ok(wire),
            }
        }
    }
}

/// Passes a create that gets no wire; its body is only touched where the image would make it look like ours.
async fn without_wire(
    worker: &Worker,
    request: &Request<'_>,
    mut body: Body,
    image: &model::Config,
    command: Command,
) -> Result<Answer, Refusal> {
    let labelled = image.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL));
    let waits = without_wait(image.entrypoint.clone()) != image.entrypoint;
    if !labelled && !waits {
        return request.ask(worker, request.body).await;
    }
    if labelled {
        body.labels.insert(LABEL.to_owned(), String::new());
        body.top.set("Labels", &body.labels);
    }
    if waits && !command.is_empty() {
        body.top.set("Entrypoint", &command.entrypoint.unwrap_or_default());
        body.top.set("Cmd", &command.cmd);
    }
    request.ask(worker, &body.top.to_bytes()).await
}

async fn with_wire(
    worker: &Worker,
    request: &Request<'_>,
    mut body: Body,
    started: (Command, &model::Config),
) -> Result<Answer, Refusal> {
    let name = request
        .query_value("name")
        .map(|name| name.trim_start_matches('/').to_owned())
        .filter(|name| !name.is_empty());
    address::allowed(worker, &body.wishes)?;
    // Until the engine has given an id, the address is held under a name that no container can have.
    let holder = format!("create {}", worker.counters.next());
    let address = take_address(worker, &body.wishes, &holder).await?;
    let note = rewrite(worker, &mut body, name.as_deref(), (address, started));
    let note = note.map(|note| sign(&mut body, Note { asked: request.asked.when, ..note }));
    let result = match note {
        Ok(note) => request.ask(worker, &body.top.to_bytes()).await.map(|answer| (answer, note)),
        Err(error) => Err(error.into()),
    };
    let created = result.as_ref().ok().and_then(|(answer, note)| Some((created(answer)?, note)));
    match created {
        Some((id, note)) => {
            info!(container = %short(&id), %address, names = ?note.names, "created with a wire");
            worker.book.created(&id, &holder, name.unwrap_or_default(), note.clone());
        }
        None => worker.book.free(address, &holder),
    }
    result.map(|(answer, _)| answer)
}

fn created(answer: &Answer) -> Option<String> {
    #[derive(Deserialize)]
    struct Created {
        #[serde(rename = "Id")]
        id: String,
    }
    let body = Some(&answer.body).filter(|_| answer.status == 201)?;
    serde_json::from_slice::<Created>(body).ok().map(|created| created.id)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WaitMount<'a> {
    #[serde(rename = "Type")]
    kind: &'a str,
    source: &'a std::path::Path,
    target: &'a str,
    read_only: bool,
}

fn rewrite(
    worker: &Worker,
    body: &mut Body,
    name: Option<&str>,
    granted: (Ipv4Addr, (Command, &model::Config)),
) -> Result<Note, BodyError> {
    let (address, (command, image)) = granted;
    let wait = if covers_dev(&body.host)? { WAIT_ELSEWHERE } else { WAIT_IN_DEV };
    mount_wait(worker, &mut body.host, wait)?;
    let upstreams = rewrite_dns(worker, &mut body.host)?;
    let names = naming::names(&naming::Sources {
        labels: &body.wishes.names,
        marathon: body.env("MARATHON_APP_ID"),
        compose: body.wishes.compose_service.as_deref(),
        hostname: body.top.get::<String>("Hostname")?.as_deref(),
        domain: &worker.config.domain,
    });
    set_hostname(body, &names, name)?;
    let (dns, dns_search, upstreams) = upstreams;
    let entrypoint: Vec<String> =
        std::iter::once(wait.to_owned()).chain(command.entrypoint.clone().unwrap_or_default()).collect();
    body.top.set("Entrypoint", &entrypoint);
    body.top.set("Cmd", &command.cmd);
    let note = Note {
        address,
        fixed: body.wishes.address.is_some(),
        subnet: body.wishes.subnet.filter(|_| body.wishes.address.is_none()),
        runtime: worker.config.runtime_dir.clone(),
        names,
        upstreams,
        tenant: Some(tenant_of(worker, body)),
        app: body.env("MARATHON_APP_ID").filter(|app| app.starts_with('/')).map(str::to_owned),
        allow: allow::text(&naming::rules(&body.wishes.allow, &worker.config.domain)),
        ports: ports(body, image)?,
        vips: body.wishes.vips.iter().map(ToString::to_string).collect(),
        exclusive: body.wishes.exclusive,
        wait: wait.to_owned(),
        asked: 0,
        original: Original { entrypoint: command.entrypoint, cmd: command.cmd, dns, dns_search },
    };
    body.top.set("HostConfig", &body.host);
    Ok(note)
}

fn tenant_of(worker: &Worker, body: &Body) -> String {
    tenant::of(&tenant::Sources {
        label: body.wishes.tenant.as_deref(),
        app: body.env("MARATHON_APP_ID"),
        project: body.wishes.compose_project.as_deref(),
        depth: worker.config.policy.tenant_depth,
    })
}

/// The named ports, as the note has them.
fn ports(body: &Body, image: &model::Config) -> Result<Vec<String>, BodyError> {
    let exposed: Option<BTreeMap<String, IgnoredAny>> = body.top.get("ExposedPorts")?;
    let mut exposed: Vec<String> = exposed.into_iter().flatten().map(|(port, _)| port).collect();
    exposed.extend(image.exposed_ports.iter().flatten().map(|(port, _)| port.clone()));
    let ports = services::ports(body.wishes.ports.clone(), &body.env, &exposed);
    Ok(ports.iter().map(NamedPort::to_string).collect())
}

fn sign(body: &mut Body, note: Note) -> Note {
    body.labels.insert(LABEL.to_owned(), note.to_text());
    body.top.set("Labels", &body.labels);
    note
}

fn covers_dev(host: &Object) -> Result<bool, BodyError> {
    let is_dev = |path: &str| path.trim_end_matches('/') == "/dev";
    let binds = host.get::<Vec<String>>("Binds")?.unwrap_or_default();
    let tmpfs = host.get::<BTreeMap<String, String>>("Tmpfs")?.unwrap_or_default();
    let mut covered =
        binds.iter().filter_map(|bind| bind.split(':').nth(1)).any(is_dev) || tmpfs.keys().any(|p| is_dev(p));
    for mut mount in host.get::<Vec<Object>>("Mounts")?.unwrap_or_default() {
        mount.settle(&["Target"])?;
        covered |= mount.get::<String>("Target")?.is_some_and(|target| is_dev(&target));
    }
    Ok(covered)
}

fn mount_wait(worker: &Worker, host: &mut Object, target: &str) -> Result<(), BodyError> {
    let mut mounts: Vec<Box<serde_json::value::RawValue>> = host.get("Mounts")?.unwrap_or_default();
    let wait = WaitMount { kind: "bind", source: &worker.config.wait_path, target, read_only: true };
    mounts.extend(serde_json::value::to_raw_value(&wait));
    host.set("Mounts", &mounts);
    Ok(())
}

/// Lets the container ask us. Its own servers become its upstreams, unless one is a loopback address: then
/// it has a resolver of its own inside, which stays what it asks.
fn rewrite_dns(worker: &Worker, host: &mut Object) -> Result<(Kept, Kept, Vec<IpAddr>), BodyError> {
    let sent = host.get::<Vec<String>>("Dns")?;
    let mut upstreams = Vec::new();
    for server in sent.iter().flatten() {
        let address: IpAddr = server.parse().map_err(|_| BodyError::Kind {
            key: "Dns".into(),
            reason: format!("{server:?} is not an IP address"),
        })?;
        upstreams.push(address);
    }
    if upstreams.iter().any(IpAddr::is_loopback) {
        return Ok((Kept::Same, Kept::Same, Vec::new()));
    }
    host.set("Dns", &[worker.config.dns_listen.ip()]);
    let search = host.get::<Vec<String>>("DnsSearch")?;
    let kept = if search.as_ref().is_none_or(Vec::is_empty) {
        let domains: Vec<String> =
            std::iter::once(worker.config.domain.to_string()).chain(naming::host_search()).collect();
        host.set("DnsSearch", &domains);
        Kept::Was(search)
    } else {
        Kept::Same
    };
    Ok((Kept::Was(sent), kept, upstreams))
}

/// The program sees a hostname that means something elsewhere too, where the user chose none.
fn set_hostname(body: &mut Body, names: &[String], name: Option<&str>) -> Result<(), BodyError> {
    let chosen = body.top.get::<String>("Hostname")?.is_some_and(|hostname| !hostname.is_empty());
    let shares_uts = body.host.get::<String>("UTSMode")?.is_some_and(|mode| mode == "host");
    let first = names.first().map(String::as_str).or(name).and_then(naming::host_label);
    if let Some(first) = first.filter(|_| !chosen && !shares_uts) {
        body.top.set("Hostname", &first);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
