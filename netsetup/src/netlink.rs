//! One rtnetlink socket: sends changes in batches and counts them, and reads.
//!
//! The only module that sends. A batch is queued in slices, each entirely before its first answer is awaited, and the
//! kernel processes it in order; the first refusal is reported. Must never decide what to change.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use tokio::runtime;
use tokio::sync::Mutex;

use crate::error::Failure;

/// How often to restart a read because the kernel's tables changed while it walked them.
const DUMP_ATTEMPTS: usize = 5;
/// How many messages may be in flight: their answers wait in the socket's receive buffer (200 kB by default, and the
/// kernel counts about 1 kB for each), and answers that do not fit are lost.
const SLICE: usize = 96;

/// One message that makes a change.
#[derive(Debug)]
pub(crate) struct Change {
    step: &'static str,
    flags: u16,
    message: RouteNetlinkMessage,
    may_be_gone: bool,
}

impl Change {
    /// Creates an object that must not exist yet.
    pub(crate) fn create(step: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { step, flags: NLM_F_CREATE | NLM_F_EXCL, message, may_be_gone: false }
    }

    /// Creates an object, or corrects it if it exists.
    pub(crate) fn replace(step: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { step, flags: NLM_F_CREATE | NLM_F_REPLACE, message, may_be_gone: false }
    }

    /// Alters or deletes an object that must exist.
    pub(crate) fn alter(step: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { step, flags: 0, message, may_be_gone: false }
    }

    /// Deletes an object that may already be gone, with its link or by an administrator's hand.
    pub(crate) fn remove(step: &'static str, message: RouteNetlinkMessage) -> Self {
        Self { step, flags: 0, message, may_be_gone: true }
    }

    fn settle(step: &'static str, may_be_gone: bool, refused: Option<Errno>) -> Result<bool, Failure> {
        match refused {
            None => Ok(true),
            Some(Errno::ESRCH | Errno::ENOENT | Errno::ENODEV | Errno::EADDRNOTAVAIL) if may_be_gone => {
                Ok(false)
            }
            Some(errno) => Err(Failure { step, errno }),
        }
    }
}

/// An open socket. It stays in the network namespace in which it was opened, whichever thread uses it.
#[derive(Debug, Clone)]
pub(crate) struct Netlink {
    handle: Handle,
    changes: Arc<AtomicU64>,
    /// Its holder reads a list: the kernel refuses a second one on the same socket with EBUSY until the first has been read
    /// to its end (net/netlink: `cb_running`).
    listing: Arc<Mutex<()>>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace, driven by the given runtime. It is closed when the
    /// last clone is dropped.
    pub(crate) fn open(runtime: &runtime::Handle, changes: Arc<AtomicU64>) -> io::Result<Self> {
        let _entered = runtime.enter();
        // Strict checking lets the kernel filter dumps; kernels before 4.20 don't know it, so readers filter as well.
        let (connection, handle, _unsolicited) = match rtnetlink::new_connection_with_strict_check() {
            Err(error) if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => {
                rtnetlink::new_connection()?
            }
            opened => opened?,
        };
        runtime.spawn(connection);
        Ok(Self { handle, changes, listing: Arc::default() })
    }

    /// Sends the changes in order. All are sent, even after one fails; the first failure is returned.
    pub(crate) async fn apply(&self, changes: Vec<Change>) -> Result<(), Failure> {
        self.apply_each(changes).await.into_iter().try_for_each(|outcome| outcome.map(drop))
    }

    /// Sends the changes in order, in slices, and reports for each whether it was made.
    pub(crate) async fn apply_each(&self, changes: Vec<Change>) -> Vec<Result<bool, Failure>> {
        let mut outcomes = Vec::with_capacity(changes.len());
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let answers: Vec<_> = changes.by_ref().take(SLICE).map(|change| self.send(change)).collect();
            for (step, may_be_gone, answer) in answers {
                let refused = match answer {
                    Ok(answer) => first_refusal(answer).await,
                    Err(errno) => Some(errno),
                };
                let outcome = Change::settle(step, may_be_gone, refused);
                self.count(u64::from(outcome == Ok(true)));
                outcomes.push(outcome);
            }
        }
        outcomes
    }

    /// Sends one change; returns whether it was made: `false` if the kernel answered with the given error.
    pub(crate) async fn apply_unless(&self, change: Change, accepted: Errno) -> Result<bool, Failure> {
        match self.apply(vec![change]).await {
            Ok(()) => Ok(true),
            Err(Failure { errno, .. }) if errno == accepted => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Asks for one object.
    pub(crate) async fn get(
        &self,
        step: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let (found, _interrupted) = self.ask(step, NLM_F_REQUEST, message).await?;
        Ok(found)
    }

    /// Asks for many objects, in slices; the answers are in the order of the questions.
    pub(crate) async fn get_each(
        &self,
        step: &'static str,
        messages: Vec<RouteNetlinkMessage>,
    ) -> Vec<Result<Vec<RouteNetlinkMessage>, Failure>> {
        let mut answers = Vec::with_capacity(messages.len());
        for slice in messages.chunks(SLICE) {
            // Each is sent when it is first polled: all of them before the first answer is awaited.
            let questions = slice.iter().map(|message| self.get(step, message.clone()));
            answers.extend(join_all(questions).await);
        }
        answers
    }

    /// Asks for all objects of a kind. The list is read to its end even if the caller stops waiting: until then the
    /// socket gives no other.
    pub(crate) async fn dump(
        &self,
        step: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let socket = self.clone();
        let read = tokio::spawn(async move { socket.list(step, message).await });
        read.await.unwrap_or(Err(Failure { step, errno: Errno::ECANCELED }))
    }

    async fn list(
        &self,
        step: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Failure> {
        let _alone = self.listing.lock().await;
        let mut attempts = 0;
        loop {
            let (found, interrupted) = self.ask(step, NLM_F_REQUEST | NLM_F_DUMP, message.clone()).await?;
            attempts += 1;
            if !interrupted || attempts == DUMP_ATTEMPTS {
                return Ok(found);
            }
        }
    }

    /// Counts changes that were made without netlink.
    pub(crate) fn count(&self, changes: u64) {
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    fn send(&self, change: Change) -> (&'static str, bool, Result<Answer, Errno>) {
        let Change { step, flags, message, may_be_gone } = change;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let answer = self.handle.clone().request(request);
        (step, may_be_gone, answer.map(|answer| Box::pin(answer) as Answer).map_err(|_| Errno::EPIPE))
    }

    async fn ask(
        &self,
        step: &'static str,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Failure> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let mut answer =
            self.handle.clone().request(request).map_err(|_| Failure { step, errno: Errno::EPIPE })?;
        let (mut found, mut interrupted) = (Vec::new(), false);
        while let Some(message) = answer.next().await {
            if let Some(errno) = refusal(&message) {
                return Err(Failure { step, errno });
            }
            interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            if let NetlinkPayload::InnerMessage(inner) = message.payload {
                found.push(inner);
            }
        }
        Ok((found, interrupted))
    }
}

/// The kernel's answers to one request.
type Answer = Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>> + Send>>;

async fn first_refusal(mut answer: Answer) -> Option<Errno> {
    let mut refused = None;
    while let Some(message) = answer.next().await {
        refused = refused.or(refusal(&message));
    }
    refused
}

fn refusal(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Errno> {
    match &message.payload {
        NetlinkPayload::Error(ErrorMessage { code: Some(code), .. }) => {
            Some(Errno::from_raw(code.get().abs()))
        }
        _ => None,
    }
}
