//! All that there is at one moment, and what may happen next.
//!
//! Must never hold anything that a death takes away beside what it leaves.

/// Clients, each with one create.
pub(super) const CLIENTS: usize = 2;
/// Addresses: one more than clients, so that one that leaks is seen at the end and blocks none.
pub(super) const ADDRESSES: usize = 3;

/// How far a record has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    Free,
    Reading,
    Asking,
    Answering,
}

/// A record, in memory that outlives its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) phase: Phase,
    pub(super) address: Option<u8>,
    pub(super) told: bool,
    pub(super) heard: bool,
    pub(super) sent: bool,
}

pub(super) const EMPTY: Record =
    Record { phase: Phase::Free, address: None, told: false, heard: false, sent: false };

/// What only the worker knows: lost with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Does what the record says.
    ByRecord,
    /// Has copied a dead worker's record, and not told the keeper yet.
    Copied,
    /// Has read the request, which is on no record.
    Read,
    /// Has taken an address.
    Took(u8),
    /// Has sent the answer, which is on no record.
    Sent,
}

/// The engine's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Connection {
    None,
    /// What the engine has to read, has done, and has answered.
    Open {
        told: bool,
        done: bool,
        answered: bool,
    },
    /// The engine's end closed it.
    Broken,
}

/// One client's create.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Create {
    /// It is in the client's socket.
    pub(super) unread: bool,
    /// Answers that the client has got.
    pub(super) answers: u8,
    pub(super) record: Record,
    /// A dead worker's record, until a worker has taken it.
    pub(super) left: Option<Record>,
    pub(super) step: Step,
    pub(super) connection: Connection,
    /// The engine does it, though nothing waits for its answer any more.
    pub(super) late: Option<u8>,
    /// How often the engine did it, and the address of what it made.
    pub(super) done: u8,
    pub(super) container: Option<u8>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub(super) creates: [Create; CLIENTS],
    /// By which create each address is taken.
    pub(super) taken: [Option<u8>; ADDRESSES],
    pub(super) worker_deaths: u8,
    pub(super) engine_deaths: u8,
    pub(super) engine_is_up: bool,
}

/// What may happen next. A number is the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The worker is killed; the keeper starts another one.
    Kill,
    /// The engine dies.
    EngineDies,
    /// It is back.
    EngineReturns,
    /// The worker copies what a dead one has left.
    Copy(usize),
    /// The keeper hears of it, and lets the dead one's record go.
    Taken(usize),
    /// recvmmsg(2) on the client's socket.
    Read(usize),
    /// The request goes on record behind that, where there is the flaw.
    Record(usize),
    /// An address is taken, in memory that workers share.
    Take(usize),
    /// The keeper holds a connection to the engine, and what is to be asked becomes valid.
    Ask(usize),
    /// sendmmsg(2) to the engine.
    Tell(usize),
    /// The engine makes the container.
    Execute(usize),
    /// The engine answers.
    Reply(usize),
    /// recvmmsg(2) from the engine.
    Hear(usize),
    /// The worker finds out what was done by an engine that broke off.
    Look(usize),
    /// The answer becomes valid.
    Answer(usize),
    /// sendmmsg(2) to the client.
    Send(usize),
    /// That becomes valid behind it, where there is the flaw.
    Note(usize),
    /// The record is free again.
    Finish(usize),
}
