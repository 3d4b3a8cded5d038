//! Accepts on the API listeners that the keeper handed over.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use super::connection;
use crate::worker::Worker;

// Without descriptors accept fails at once, again and again: the connection stays in the queue.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the task is ended. Connections already accepted go on in tasks of their own.
pub(crate) async fn accept(worker: Arc<Worker>, listener: UnixListener, name: Arc<str>) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => take(&worker, socket, Vec::new(), Arc::clone(&name)),
            Err(error) => {
                warn!(%error, "cannot accept a connection; it waits in the queue");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a client in a task of its own. `read` is what has already been read from it.
pub(crate) fn take(worker: &Arc<Worker>, socket: UnixStream, read: Vec<u8>, listener: Arc<str>) {
    let guard = worker.counters.connection();
    let worker = Arc::clone(worker);
    tokio::spawn(async move {
        connection::serve(worker, socket, read, listener).await;
        drop(guard);
    });
}
