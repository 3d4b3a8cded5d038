//! Accepts on the API listeners that the keeper handed over.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tracing::warn;

use super::connection;
use crate::worker::Worker;

// Without descriptors accept fails at once, again and again: the connection stays in the queue.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the task is ended. Connections already accepted go on in tasks of their own.
pub(crate) async fn accept(worker: Arc<Worker>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let guard = worker.counters.connection();
                let worker = Arc::clone(&worker);
                tokio::spawn(async move {
                    connection::serve(worker, socket).await;
                    drop(guard);
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection; it waits in the queue");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
