//! Our own calls to the engine, by hyper over its unix socket. Clients' requests do not pass here: they keep
//! their bytes and go by `front::upstream`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyperlocal::UnixConnector;
use serde::de::DeserializeOwned;

use crate::docker::model;
use crate::route::percent_encode;

/// Why a call of ours failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
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
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// A client of the engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    client: Client<UnixConnector, Full<Bytes>>,
    socket: PathBuf,
}

// Every call of ours is one that the engine answers at once; a hung engine must not hang us.
const PATIENCE: Duration = Duration::from_secs(30);

impl Engine {
    /// A client of the engine at this socket. Connects when first used.
    pub(crate) fn new(socket: &Path) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(UnixConnector);
        Self { client, socket: socket.to_owned() }
    }

    /// The engine's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends a request and gives back the answer, whatever its status, with the body still to come.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`].
    pub(crate) async fn send(
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
        self.client.request(request).await.map_err(|error| EngineError::Unreachable(chain(&error)))
    }

    /// Sends a request and gives back status and whole body.
    ///
    /// # Errors
    /// [`EngineError::Unreachable`], also after half a minute.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), EngineError> {
        let exchange = async {
            let answer = self.send(method, path, body).await?;
            let status = answer.status().as_u16();
            let body = answer
                .into_body()
                .collect()
                .await
                .map_err(|error| EngineError::Unreachable(chain(&error)))?;
            Ok((status, body.to_bytes()))
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| Err(EngineError::Unreachable(format!("no answer within {PATIENCE:?}"))))
    }

    /// A `GET` whose answer is JSON.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, EngineError> {
        let body = self.expect(Method::GET, path, Vec::new()).await?;
        serde_json::from_slice(&body).map_err(|error| EngineError::Unreadable(error.to_string()))
    }

    /// A request that should succeed.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub(crate) async fn expect(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, EngineError> {
        let (status, body) = self.call(method, path, body).await?;
        if status < 400 {
            return Ok(body);
        }
        Err(EngineError::Refused { status, message: message_of(&body) })
    }

    /// Inspects a container by id, name or prefix.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub(crate) async fn inspect(&self, reference: &str) -> Result<model::Container, EngineError> {
        self.get(&format!("/containers/{}/json", percent_encode(reference))).await
    }

    /// Ends a container as `docker stop` would, so that no restart policy brings it back.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub(crate) async fn stop(&self, id: &str) -> Result<(), EngineError> {
        self.expect(Method::POST, &format!("/containers/{id}/stop?t=2"), Vec::new()).await.map(drop)
    }
}

/// The text of an engine's error body.
pub(crate) fn message_of(body: &[u8]) -> String {
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
