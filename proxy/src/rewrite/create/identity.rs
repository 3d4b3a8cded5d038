//! What a create says about who its container is: names, tenant and named ports, from labels, environment and image. Must never
//! ask anyone else.

use std::collections::BTreeMap;

use selvedge_containers::names;
use selvedge_containers::nomad::Task;
use selvedge_containers::ports;
use selvedge_containers::tenant;
use selvedge_engine::model;
use selvedge_engine::object::BodyError;
use selvedge_registry::record::NamedPort;
use serde::de::IgnoredAny;

use super::sent::Body;
use crate::api::Api;

/// The names, relative to the domain.
pub(super) fn names_of(api: &Api, body: &Body) -> Result<Vec<String>, BodyError> {
    Ok(names::names(&names::Sources {
        labels: &body.wishes.names,
        marathon: body.env("MARATHON_APP_ID"),
        nomad: Task::of(|key| body.env(key)).and_then(|task| task.name()),
        compose: body.wishes.compose_service.as_deref(),
        hostname: body.top.get::<String>("Hostname")?.as_deref(),
        domain: &api.settings.domain,
    }))
}

/// Whose it is.
pub(super) fn tenant_of(api: &Api, body: &Body) -> String {
    let task = Task::of(|key| body.env(key));
    tenant::of(&tenant::Sources {
        label: body.wishes.tenant.as_deref(),
        app: body.env("MARATHON_APP_ID"),
        nomad: task.as_ref().map(Task::owner),
        project: body.wishes.compose_project.as_deref(),
        depth: api.settings.tenant_depth,
    })
}

/// The named ports, as the note has them.
pub(super) fn ports(body: &Body, image: &model::Config) -> Result<Vec<String>, BodyError> {
    let exposed: Option<BTreeMap<String, IgnoredAny>> = body.top.get("ExposedPorts")?;
    let mut exposed: Vec<String> = exposed.into_iter().flatten().map(|(port, _)| port).collect();
    exposed.extend(image.exposed_ports.iter().flatten().map(|(port, _)| port.clone()));
    let ports = ports::ports(body.wishes.ports.clone(), &body.env, &exposed);
    Ok(ports.iter().map(NamedPort::to_string).collect())
}
