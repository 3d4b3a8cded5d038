//! Our own calls to the engine, by hyper over its unix socket. Clients' requests do not pass here: they keep
//! their bytes and go by `http::pool`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyperlocal::UnixConnector;
use serde::de::DeserializeOwned;

use crate::identity::Identity;
use crate::model;
use crate::resolver::{Resolver, Resolvers};
use crate::route::percent_encode;

/// Why a call of ours failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No answer at all.
    #[error("the engine does not answer: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the engine answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The engine's own words.
        message: String,
    },
    /// An answer that we cannot read.
    #[error("the engine's answer cannot be read: {0}")]
    Unreadable(String),
}

impl EngineError {
    /// There is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// A client of the engine.
#[derive(Clone, Debug)]
pub struct Engine {
    client: Client<UnixConnector, Full<Bytes>>,
    socket: PathBuf,
    resolvers: Resolvers,
    identity: Identity,
}

impl Engine {
    /// A client of the engine at this socket. Connects when first used.
    pub fn new(socket: &Path) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(UnixConnector);
        let resolvers = Resolvers::new(socket);
        Self { client, socket: socket.to_owned(), resolvers, identity: Identity::default() }
    }

    /// How it introduces itself.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The engine's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What the engine is set to give its containers for DNS.
    pub fn resolver(&self) -> Arc<Resolver> {
        self.resolvers.get()
    }

    /// Sends a request and gives back the answer, whatever its status, with the body still to come.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, EngineError> {
        let mut request = Request::builder().method(method).uri(hyperlocal::Uri::new(&self.socket, path));
        if !body.is_empty() {
            request = request.header(hyper::header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .header(hyper::header::HOST, "docker")
            .body(Full::from(body))
            .map_err(|error| EngineError::Unreadable(error.to_string()))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| EngineError::Unreachable(chain(&error)))?;
        self.identity.learn(answer.headers());
        Ok(answer)
    }

    /// Sends a request and gives back status and whole body. An engine that works is waited for, however long that takes.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`].
    pub async fn call(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(u16, Bytes), EngineError> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| EngineError::Unreachable(chain(&error)))?;
        Ok((status, body.to_bytes()))
    }

    /// A `GET` whose answer is JSON.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let body = self.expect(Method::GET, path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| EngineError::Unreadable(error.to_string()))
    }

    /// A request that should succeed.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn expect(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, EngineError> {
        let (status, body) = self.call(method, path, body).await?;
        // "Not modified" is what a stop asks for; the redirect of a name that is not in its clean form is no answer.
        if status < 300 || status == 304 {
            return Ok(body);
        }
        Err(EngineError::Refused { status, message: message_of(&body) })
    }

    /// Inspects a container by id, name or prefix.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn inspect(&self, reference: &str) -> Result<model::Container, EngineError> {
        self.get(&format!("/containers/{}/json", percent_encode(reference))).await
    }

    /// Ends a container as `docker stop` would, so that no restart policy brings it back.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn stop(&self, id: &str) -> Result<(), EngineError> {
        self.expect(Method::POST, &format!("/containers/{id}/stop?t=2"), Vec::new()).await.map(drop)
    }
}

/// The text of an engine's error body.
pub fn message_of(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    serde_json::from_slice::<Message>(body)
        .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |parsed| parsed.message)
}

/// An error with its causes: hyper's own texts name only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
