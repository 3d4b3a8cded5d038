//! What `selvedge status` and `selvedge ps` ask: JSON over HTTP on a socket that only root may open.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use selvedge_registry::record::DEFAULT_TENANT;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixListener;

use crate::docker::error::message_body;
use crate::fabric;
use crate::reconcile;
use crate::worker::Worker;

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
    /// Whom it belongs to.
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
}

/// Answers for ever.
pub(crate) async fn serve(worker: Arc<Worker>, listener: UnixListener) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let worker = Arc::clone(&worker);
        let service = service_fn(move |request| {
            let worker = Arc::clone(&worker);
            async move { Ok::<_, Infallible>(answer(&worker, &request).await) }
        });
        // A client that goes away is no event of ours.
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer<B>(worker: &Worker, request: &Request<B>) -> Response<Full<Bytes>> {
    let (status, body) = match request.uri().path() {
        "/network" => told(plan(worker).await),
        path if path.starts_with(FORGET) => told(forget(worker, request).await),
        "/status" => (StatusCode::OK, status(worker).await.to_string().into_bytes()),
        "/containers" => (StatusCode::OK, serde_json::to_vec(&containers(worker)).unwrap_or_default()),
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
async fn plan(worker: &Worker) -> Result<Value, String> {
    let told = |error: selvedge_netsetup::Error| error.to_string();
    let mut lines = worker.guard.plan().await.map_err(told)?;
    lines.extend(worker.balancer.plan().await.map_err(told)?);
    if !worker.config.cluster.is_local() {
        let view = Arc::clone(&worker.cluster.views().borrow());
        let fabric = fabric::fabric(worker, &view).ok_or("the registry has not been read yet")?;
        lines.extend(worker.network.plan(&fabric).await.map_err(told)?);
    }
    Ok(Value::from(lines))
}

async fn forget<B>(worker: &Worker, request: &Request<B>) -> Result<Value, String> {
    let host = request.uri().path().trim_start_matches(FORGET);
    if request.method() != hyper::Method::DELETE {
        return Err("a host can only be forgotten".to_owned());
    }
    worker.cluster.forget(host).await.map(|()| Value::Null)
}

const ENGINE_PATIENCE: Duration = Duration::from_secs(2);

async fn status(worker: &Worker) -> Value {
    let config = &worker.config;
    // A hung engine must not hide what it hangs.
    let asked = tokio::time::timeout(ENGINE_PATIENCE, worker.engine.get::<Value>("/version")).await;
    let engine_version = asked.ok().and_then(Result::ok).unwrap_or(Value::Null);
    serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "worker": {
            "pid": std::process::id(),
            "uptime_seconds": worker.since.elapsed().as_secs(),
            "requests": worker.counters.now(),
            "network_changes": worker.network.changes(),
        },
        "keeper": worker.keeper.status().await,
        "engine": {
            "socket": config.engine,
            "up": worker.engine_is_up(),
            "answers": !engine_version.is_null(),
            "version": engine_version.get("Version"),
            "api": engine_version.get("ApiVersion"),
        },
        "listen": config.listen,
        "pool": config.pool,
        "blocks": worker.book.free_by_block().iter().map(|(block, free)| {
            serde_json::json!({"block": block, "free": free})
        }).collect::<Vec<_>>(),
        "cluster": cluster(worker),
        "network": {"routes": worker.routes.reason(), "firewalls": worker.firewalls.reason()},
        "policy": worker.guard.status(),
        "vips": worker.balancer.status(),
        "doubles": worker.doubles(),
        "addresses_taken": worker.book.addresses_taken(),
        "domain": config.domain.to_string(),
        "dns": worker.dns_counts().map(|counts| dns(&counts)),
    })
}

/// `null` on a single host.
fn cluster(worker: &Worker) -> Value {
    let config = &worker.config.cluster;
    if config.is_local() {
        return Value::Null;
    }
    let view = Arc::clone(&worker.cluster.views().borrow());
    serde_json::json!({
        "registry": config.registry_text,
        "connection": view.registry,
        "read": view.read,
        "host": config.host_name,
        "address": worker.cluster.address(),
        "hosts": view.peers,
    })
}

fn dns(counts: &selvedge_dns::Counts) -> Value {
    serde_json::json!({
        "udp_queries": counts.udp_queries,
        "tcp_queries": counts.tcp_queries,
        "local": counts.local,
        "forwarded": counts.forwarded,
        "cache_hits": counts.cache_hits,
        "refused": counts.refused,
        "malformed": counts.malformed,
        "servfail": counts.servfail,
        "overload": counts.overload,
    })
}

fn containers(worker: &Worker) -> Vec<Shown> {
    let domain = worker.config.domain.to_string();
    let mut shown: Vec<Shown> = worker
        .book
        .all()
        .into_iter()
        .map(|(id, entry)| Shown {
            id,
            address: entry.note.address.to_string(),
            names: reconcile::names(&entry).iter().map(|name| format!("{name}.{domain}")).collect(),
            state: serde_json::to_value(entry.phase)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default(),
            tenant: entry.note.tenant.clone().unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
            healthy: !entry.unhealthy && !entry.paused,
            exclusive: entry.note.exclusive,
            draining: entry.draining.is_some(),
            serving: if entry.draining.is_some() { Vec::new() } else { entry.serving },
            name: entry.name,
        })
        .collect();
    shown.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.id.cmp(&b.id)));
    shown
}
