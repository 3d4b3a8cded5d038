//! What `selvedge status` and `selvedge ps` ask: JSON over HTTP on a socket that only root may open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_containers::shared::Containers;
use selvedge_containers::{publish, wireless};
use selvedge_datapath::follow::Datapath;
use selvedge_engine::client::Engine;
use selvedge_engine::model::Listed;
use selvedge_engine::refusal::message_body;
use selvedge_registry::name::Name;
use selvedge_registry::record::DEFAULT_TENANT;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;

use crate::parts::Worker;
use crate::pulse::PATIENCE;
use crate::status::{Status, gather};

/// `GET /containers`: one of ours.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// 64 hex digits.
    pub(crate) id: String,
    /// The container's name.
    pub(crate) name: String,
    /// The wire's address.
    pub(crate) address: String,
    /// Full names that are answered.
    pub(crate) names: Vec<String>,
    /// `stopped`, `starting`, `wired`.
    pub(crate) state: String,
    /// Its tenant.
    pub(crate) tenant: String,
    /// Whether its HEALTHCHECK, if it has one, says that it is well.
    pub(crate) healthy: bool,
    /// Whether only the newest of its name is answered.
    pub(crate) exclusive: bool,
    /// Of the virtual addresses that it is told to stand behind those by which connections come now.
    #[serde(default)]
    pub(crate) serving: Vec<String>,
    /// Whether it is about to be stopped.
    #[serde(default)]
    pub(crate) draining: bool,
    /// Why it has no wire, if it has none and labels of ours, or Compose's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Who connects asks at once, and once.
const QUESTION: Duration = Duration::from_secs(5);

/// Answers for ever.
pub(crate) async fn serve(worker: Arc<Worker>, listener: UnixListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        // A worker that leaves waits for it: who was taken in is answered.
        let guard = worker.api.counters.question();
        let worker = Arc::clone(&worker);
        let service = service_fn(move |request| {
            let worker = Arc::clone(&worker);
            async move {
                let desk = Desk {
                    containers: &worker.containers,
                    datapath: &worker.datapath,
                    domain: &worker.config.domain,
                };
                let status = gather::status(&worker);
                Ok::<_, Infallible>(answer(&desk, status, &request).await)
            }
        });
        // A client that goes away is no event of ours.
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(QUESTION)
                .serve_connection(TokioIo::new(socket), service)
                .await;
            drop(guard);
        });
    }
}

/// What questions are answered from, but for those about the worker itself.
struct Desk<'a> {
    containers: &'a Containers,
    datapath: &'a Datapath,
    domain: &'a Name,
}

/// `status` is only asked if it is wanted.
async fn answer<B>(
    desk: &Desk<'_>,
    status: impl Future<Output = Status>,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/network" => told(plan(desk.datapath).await),
        path if path.starts_with(FORGET) => told(forget(desk.datapath, request).await),
        "/status" => (StatusCode::OK, serde_json::to_vec(&status.await).unwrap_or_default()),
        "/containers" => (StatusCode::OK, serde_json::to_vec(&containers(desk).await).unwrap_or_default()),
        _ => (StatusCode::NOT_FOUND, message_body("selvedge: no such page")),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

/// `DELETE /hosts/NAME`: forgets a dead host.
pub(crate) const FORGET: &str = "/hosts/";

fn told(result: Result<Value, String>) -> (StatusCode, Vec<u8>) {
    match result {
        Ok(value) => (StatusCode::OK, value.to_string().into_bytes()),
        Err(reason) => (StatusCode::CONFLICT, message_body(&reason)),
    }
}

/// What would be changed in the kernel's rules, and in its routes to other hosts, one line each.
async fn plan(datapath: &Datapath) -> Result<Value, String> {
    let told = |error: selvedge_netsetup::Error| error.to_string();
    let mut lines = datapath.directory.policy.plan().await.map_err(told)?;
    lines.extend(datapath.vips.plan().await.map_err(told)?);
    lines.extend(datapath.routes.plan().await?);
    Ok(Value::from(lines))
}

async fn forget<B>(datapath: &Datapath, request: &Request<B>) -> Result<Value, String> {
    let host = request.uri().path().trim_start_matches(FORGET);
    if request.method() != hyper::Method::DELETE {
        return Err("a host can only be forgotten".to_owned());
    }
    datapath.cluster.forget(host).await.map(|()| Value::Null)
}

/// Containers that have no wire and whose user may have expected one.
async fn wireless(engine: &Engine) -> Vec<Shown> {
    let list = engine.get::<Vec<Listed>>("/containers/json?all=1");
    let listed = tokio::time::timeout(PATIENCE, list).await.ok().and_then(Result::ok);
    let of = |container: Listed| {
        let labels = container.labels.clone().unwrap_or_default();
        let reason = wireless::reason(&container.host_config.network_mode, &labels)?;
        Some(Shown {
            name: container.name().to_owned(),
            id: container.id,
            address: "-".to_owned(),
            names: Vec::new(),
            state: "no wire".to_owned(),
            tenant: "-".to_owned(),
            healthy: true,
            exclusive: false,
            serving: Vec::new(),
            draining: false,
            reason: Some(reason),
        })
    };
    listed.into_iter().flatten().filter_map(of).collect()
}

async fn containers(desk: &Desk<'_>) -> Vec<Shown> {
    let domain = desk.domain.to_string();
    let mut shown: Vec<Shown> = desk
        .containers
        .book
        .all()
        .into_iter()
        .map(|(id, entry)| Shown {
            id,
            address: entry.note.address.to_string(),
            names: publish::names(&entry).iter().map(|name| format!("{name}.{domain}")).collect(),
            state: serde_json::to_value(entry.phase)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
            tenant: entry.tenant().unwrap_or(DEFAULT_TENANT).to_owned(),
            healthy: entry.is_well(),
            exclusive: entry.is_exclusive(),
            draining: entry.draining.is_some(),
            serving: if entry.draining.is_some() { Vec::new() } else { entry.serving },
            name: entry.name,
            reason: None,
        })
        .collect();
    shown.extend(wireless(&desk.containers.engine).await);
    shown.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
    shown
}

#[cfg(test)]
mod tests;
