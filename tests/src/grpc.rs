//! A gRPC server on a unix socket, and its client: both by tonic, which is what etcd's clients use too. For what engines from
//! API 1.53 on speak on their own socket.
//!
//! Must never connect twice where a test asks whether one connection lasts: [`Server::connections`] tells.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures_util::{Stream, StreamExt};
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

/// One message in, the same out.
const SAY: &str = "/tomorrow.Engine/Say";
/// Each message out as it comes in.
const TALK: &str = "/tomorrow.Engine/Talk";
/// How many, in; their numbers, one each few milliseconds.
const COUNT: &str = "/tomorrow.Engine/Count";
const STEP: Duration = Duration::from_millis(5);

/// Messages are bytes, without a schema.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let len = from.remaining();
        Ok(Some(from.copy_to_bytes(len).to_vec()))
    }
}

/// A stream of messages.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Vec<u8>, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<T, Status>> + Send>>;

/// A server that runs for as long as the test process lives.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub socket: PathBuf,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Listens at `socket`.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn start(socket: PathBuf) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a free path");
        listener.set_nonblocking(true).expect("a socket of ours");
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || runtime().block_on(serve(listener, count)));
        Self { socket, connections }
    }

    /// How many connections it has had.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

async fn serve(listener: std::os::unix::net::UnixListener, count: Arc<AtomicUsize>) {
    let listener = UnixListener::from_std(listener).expect("a listener");
    let clients = UnixListenerStream::new(listener).inspect(move |_| {
        count.fetch_add(1, Relaxed);
    });
    let served = tonic::transport::Server::builder().add_service(Engine).serve_with_incoming(clients);
    served.await.expect("it goes on");
}

/// What a test's client and server run on.
///
/// # Panics
/// When there is no memory for it.
#[must_use]
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[derive(Debug, Clone, Copy)]
struct Engine;

impl NamedService for Engine {
    const NAME: &'static str = "tomorrow.Engine";
}

impl Service<http::Request<Body>> for Engine {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Plain);
            Ok(match request.uri().path() {
                SAY => grpc.unary(Say, request).await,
                TALK => grpc.streaming(Talk, request).await,
                COUNT => grpc.server_streaming(Count, request).await,
                _ => Status::unimplemented("tomorrow.Engine has Say, Talk and Count").into_http(),
            })
        })
    }
}

struct Say;

impl tonic::server::UnaryService<Vec<u8>> for Say {
    type Response = Vec<u8>;
    type Future = Answer<Response<Vec<u8>>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner())) })
    }
}

struct Talk;

impl tonic::server::StreamingService<Vec<u8>> for Talk {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = Answer<Response<Messages>>;

    fn call(&mut self, request: Request<Streaming<Vec<u8>>>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner().boxed())) })
    }
}

struct Count;

impl tonic::server::ServerStreamingService<Vec<u8>> for Count {
    type Response = Vec<u8>;
    type ResponseStream = Messages;
    type Future = Answer<Response<Messages>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        let many: u32 = String::from_utf8_lossy(&request.into_inner()).parse().unwrap_or(0);
        let number = |number: u32| async move {
            tokio::time::sleep(STEP).await;
            Ok(number.to_string().into_bytes())
        };
        let all = futures_util::stream::iter(0..many).then(number).boxed();
        Box::pin(async { Ok(Response::new(all)) })
    }
}

/// A client with one connection.
#[derive(Debug, Clone)]
pub struct Client(Channel);

impl Client {
    /// Connects to a socket.
    ///
    /// # Errors
    /// None that speaks HTTP/2 answers there.
    ///
    /// # Panics
    /// When the path is none.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("a path");
        Ok(Self(endpoint.connect().await?))
    }

    async fn grpc(&self) -> Result<tonic::client::Grpc<Channel>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    /// One call, one answer.
    ///
    /// # Errors
    /// The call's status.
    pub async fn say(&self, words: &[u8]) -> Result<Vec<u8>, Status> {
        let request = Request::new(words.to_vec());
        let answer = self.grpc().await?.unary(request, PathAndQuery::from_static(SAY), Plain).await?;
        Ok(answer.into_inner())
    }

    /// A conversation: what is said, and what is answered.
    ///
    /// # Errors
    /// The call's status.
    pub async fn talk(
        &self,
        words: impl Stream<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Streaming<Vec<u8>>, Status> {
        let path = PathAndQuery::from_static(TALK);
        Ok(self.grpc().await?.streaming(Request::new(words), path, Plain).await?.into_inner())
    }

    /// Numbers from 0 on.
    ///
    /// # Errors
    /// The call's status.
    pub async fn count(&self, many: u32) -> Result<Streaming<Vec<u8>>, Status> {
        let (request, path) = (Request::new(many.to_string().into_bytes()), PathAndQuery::from_static(COUNT));
        Ok(self.grpc().await?.server_streaming(request, path, Plain).await?.into_inner())
    }
}
