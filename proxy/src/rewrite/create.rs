//! `POST /containers/create`: decides whether the container gets a wire, and writes all that its start needs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use selvedge_containers::label::{LABEL, Note, Original};
use selvedge_containers::names;
use selvedge_containers::place::Place;
use selvedge_containers::span;
use selvedge_engine::gone::{EngineGone, Unanswered};
use selvedge_engine::http::message::Answer;
use selvedge_engine::lifetime::moment;
use selvedge_engine::model::{self, short};
use selvedge_engine::object::{BodyError, Object};
use selvedge_engine::refusal::Refusal;
use selvedge_engine::route::percent_encode;
use selvedge_registry::allow;
use serde::Serialize;
use tracing::{Instrument, info};

use super::request::Request;
use super::{body, weave};
use crate::api::Api;
use crate::then::{Created, Then};

mod address;
mod command;
mod dns;
mod group;
mod identity;
mod image;
mod plain;
mod seccomp;
mod sent;
mod wants;
use address::take_address;
use command::Command;
use dns::Rewritten;
use identity::{names_of, ports, tenant_of};
use image::Seen;
use plain::without_wire;
use sent::Body;
use wants::{Wire, tell_why_not, wants_wire};

/// Answers a create.
pub(crate) async fn answer(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    if !body::is_object(request.body) {
        return request.order(api, request.body, Then::Pass).await;
    }
    match decided(api, request).await {
        Err(Unanswered::Refused(refusal)) if refusal.of_body => {
            body::in_the_engines_words(api, request, refusal).await
        }
        result => result,
    }
}

async fn decided(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    if request.asked.again
        && let Some(answer) = made_before(api, request).await?
    {
        return Ok(answer);
    }
    begin(api, request).await
}

async fn begin(api: &Api, request: &Request<'_>) -> Result<Answer, Unanswered> {
    for _ in 0..ATTEMPTS {
        if let Some(answer) = attempt(api, request).await? {
            return Ok(answer);
        }
    }
    let told = "the image comes and goes, or becomes another one, while the container is created";
    Err(Refusal::new(409, told).into())
}

/// So often a create is begun again because its image has changed under it.
const ATTEMPTS: u32 = 64;

/// Tries a create once; `None` when its image changed meanwhile, and nothing is left of it.
async fn attempt(api: &Api, request: &Request<'_>) -> Result<Option<Answer>, Unanswered> {
    let mut body = Body::read(body::value(request.body))?;
    let seen = image::look(api, &body).await?;
    let group = group::of(api, &body).await;
    let wanted = wants_wire(&body, api.settings.user_networks, group.is_some())?;
    if wanted != Wire::None
        && let Some(value) = body.env(weave::VARIABLE).map(str::to_owned)
    {
        let refuse = |why| Refusal::new(400, format!("{}={value:?}: {why}", weave::VARIABLE));
        weave::take_in(&mut body.wishes, &value).map_err(refuse)?;
    }
    let Some(seen) = seen else { return image::refused(api, request, body).await };
    let command = Command::merge(&body, &seen.config)?;
    if let Some(host) = group {
        return group::join(api, request, body, (&host, command, &seen.config)).await.map(Some);
    }
    if wanted == Wire::None || command.is_empty() {
        tell_why_not(request, &body)?;
        return without_wire(api, request, body, &seen.config, command).await.map(Some);
    }
    with_wire(api, request, body, (command, &seen, wanted == Wire::Beside)).await
}

/// The answer of a create that is asked again and has been done: by its own number, or, where there is no wire, by a
/// container of that name which is no older than the request.
async fn made_before(api: &Api, request: &Request<'_>) -> Result<Option<Answer>, Unanswered> {
    // What an engine was told by a worker that died may not be done yet.
    tokio::time::sleep(STILL_MADE).await;
    let filters = percent_encode(&format!("{{\"label\":[{LABEL:?}]}}"));
    let path = format!("/containers/json?all=1&filters={filters}");
    let listed: Vec<model::Listed> = api.containers.engine.get(&path).await.map_err(EngineGone::from)?;
    for container in listed {
        let labels = container.labels.clone().unwrap_or_default();
        if Note::read(&labels).is_some_and(|note| note.asked == request.asked.when) {
            api.containers.book.learn_listed(&container);
            return Ok(Some(made(api, &container.id)));
        }
    }
    let Some(name) = request.query_value("name").filter(|name| !name.is_empty()) else { return Ok(None) };
    match api.containers.engine.inspect(&name).await {
        Ok(found) if has_label(&found, image::UNSEEN) => {
            image::remove(api, &found.id).await?;
            Ok(None)
        }
        Ok(found) if moment(&found.created) >= request.asked.when => {
            api.containers.book.learn(&found);
            Ok(Some(made(api, &found.id)))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(EngineGone::from(error).into()),
    }
}

fn has_label(container: &model::Container, label: &str) -> bool {
    container.config.labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

const STILL_MADE: Duration = Duration::from_millis(250);

fn made(api: &Api, id: &str) -> Answer {
    let body = serde_json::json!({"Id": id, "Warnings": []});
    Answer::json(api.containers.engine.identity(), 201, format!("{body}\n").into_bytes())
}

async fn with_wire(
    api: &Api,
    request: &Request<'_>,
    mut body: Body,
    (command, seen, beside): (Command, &Seen, bool),
) -> Result<Option<Answer>, Unanswered> {
    let name = request
        .query_value("name")
        .map(|name| name.trim_start_matches('/').to_owned())
        .filter(|name| !name.is_empty());
    address::allowed(api, &body.wishes)?;
    let create = request.asked.when;
    // What an earlier try took, of this worker or of a dead one, became no container's.
    for number in [request.entry.number(), create].into_iter().filter(|number| *number != 0) {
        api.containers.addresses.give_back_all(number);
    }
    request.entry.set_number(create);
    let address = take_address(api, &body.wishes, create).await?;
    let note = rewrite(api, &mut body, name.as_deref(), (address, (command, &seen.config)));
    let note = match note {
        Ok(note) => sign(&mut body, Note { asked: create, beside, ..note }),
        Err(error) => {
            api.containers.addresses.give_back(address, create);
            return Err(error.into());
        }
    };
    let image = (image::name(&body)?, seen.id.clone());
    let made = Created { name, note, image };
    let sent = body::with_rest(body.top.to_bytes(), request.body);
    let answer = request.order(api, &sent, Then::Created(Box::new(made.clone()))).await;
    take_in(api, &made, answer).await
}

/// Takes in what the engine says to a create with a wire; `None` when its image changed meanwhile, and nothing is left of it.
async fn take_in(
    api: &Api,
    made: &Created,
    answer: Result<Answer, Unanswered>,
) -> Result<Option<Answer>, Unanswered> {
    let note = &made.note;
    match answer.as_ref().ok().and_then(image::created) {
        Some(id) => {
            if !is_ours(api, &id, made).instrument(span::container(&id)).await? {
                return Ok(None);
            }
        }
        // The engine may have made it all the same, and broken off before it said so.
        None if matches!(answer, Err(Unanswered::Gone(_))) => {}
        None => api.containers.addresses.give_back(note.address, note.asked),
    }
    answer.map(Some)
}

/// Takes a container in that the engine has just made; false when its image changed meanwhile, and it is gone again.
async fn is_ours(api: &Api, id: &str, made: &Created) -> Result<bool, Unanswered> {
    let Created { name, note, image } = made;
    info!(container = %short(id), address = %note.address, names = ?note.names, "created with a wire");
    api.containers.book.created(id, name.clone().unwrap_or_default(), note.clone());
    let is_ours = image::is_of(api, id, image).await?;
    if !is_ours {
        api.containers.book.forget(id);
    }
    Ok(is_ours)
}

/// Goes on with a create with a wire that was asked of the engine.
pub(crate) async fn go_on(
    api: &Api,
    request: &Request<'_>,
    made: &Created,
    answer: Result<Answer, Unanswered>,
) -> Result<Answer, Unanswered> {
    match take_in(api, made, answer).await? {
        Some(answer) => Ok(answer),
        None => begin(api, request).await,
    }
}

/// Goes on with a create whose image was not there.
pub(crate) async fn go_on_unseen(
    api: &Api,
    request: &Request<'_>,
    answer: Answer,
) -> Result<Answer, Unanswered> {
    match image::unseen(api, answer).await? {
        Some(answer) => Ok(answer),
        None => begin(api, request).await,
    }
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
    api: &Api,
    body: &mut Body,
    name: Option<&str>,
    granted: (Ipv4Addr, (Command, &model::Config)),
) -> Result<Note, BodyError> {
    let (address, (command, image)) = granted;
    let bare = body.top.raw("HostConfig").is_none();
    let silent = seccomp::may_end_wait(&body.host, &api.containers.engine.resolver())?;
    let wait = Place { in_dev: !covers_dev(&body.host)?, silent }.path();
    mount_wait(api, &mut body.host, wait)?;
    let Rewritten { dns, search, upstreams } = dns::rewrite(api, &mut body.host)?;
    let names = names_of(api, body)?;
    let named = dns::set_hostname((&mut body.top, &body.host), &names, name)?;
    let unnamed = !named && body.top.get::<String>("Hostname")?.is_some_and(|hostname| !hostname.is_empty());
    let entrypoint: Vec<String> =
        std::iter::once(wait.to_owned()).chain(command.entrypoint.clone().unwrap_or_default()).collect();
    body.top.set("Entrypoint", &entrypoint);
    body.top.set("Cmd", &command.cmd);
    let note = Note {
        address,
        fixed: body.wishes.address.is_some(),
        subnet: body.wishes.subnet.filter(|_| body.wishes.address.is_none()),
        runtime: api.settings.runtime_dir.clone(),
        names,
        named,
        upstreams,
        tenant: Some(tenant_of(api, body)),
        app: body.env("MARATHON_APP_ID").filter(|app| app.starts_with('/')).map(str::to_owned),
        allow: allow::text(&names::rules(&body.wishes.allow, &api.settings.domain)),
        ports: ports(body, image)?,
        vips: body.wishes.vips.iter().map(ToString::to_string).collect(),
        exclusive: body.wishes.exclusive,
        beside: false,
        wait: wait.to_owned(),
        asked: 0,
        original: Original {
            entrypoint: command.entrypoint,
            cmd: command.cmd,
            dns,
            dns_search: search,
            unnamed,
            bare,
        },
    };
    body.top.set("HostConfig", &body.host);
    Ok(note)
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

fn mount_wait(api: &Api, host: &mut Object, target: &str) -> Result<(), BodyError> {
    let mut mounts: Vec<Box<serde_json::value::RawValue>> = host.get("Mounts")?.unwrap_or_default();
    let wait = WaitMount { kind: "bind", source: &api.settings.wait_path, target, read_only: true };
    mounts.extend(serde_json::value::to_raw_value(&wait));
    host.set("Mounts", &mounts);
    Ok(())
}

#[cfg(test)]
mod tests;
