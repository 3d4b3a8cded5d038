//! Creates of several clients, each of which takes an address: answered exactly once, executed at most once, and no address
//! with two containers, however often the worker is killed and the engine dies.
//!
//! A [`Flaw`] leaves one precaution out. It is there to show that the search would find what the precaution is for.

use stateright::{Model, Property};

mod state;

use state::{ADDRESSES, CLIENTS, Connection, Create, EMPTY, Phase, Record, Step};
pub use state::{Action, World};

/// A precaution that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// What a client sent is not on record when it has left the socket.
    ConsumedUnrecorded,
    /// How much of the answer was sent is written down after it was sent, not by the kernel.
    SentUnrecorded,
    /// The engine's connection ends with its worker: the next one asks again.
    ConnectionLost,
    /// Something is done for a client before the keeper has been told that its record was copied.
    ActsBeforeTaken,
    /// After the engine's end a create is asked again without a look for what it has made.
    NeverLooks,
    /// The address that a dead worker took, and did not ask for, stays taken.
    AddressLeft,
}

/// The model: how many deaths there may be.
#[derive(Debug, Clone, Copy)]
pub struct Custody {
    /// Kills of a worker.
    pub worker_deaths: u8,
    /// Ends of the engine.
    pub engine_deaths: u8,
    /// What is left out.
    pub flaw: Option<Flaw>,
}

impl Custody {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// What the worker may do next for this client.
    fn of_worker(&self, world: &World, client: usize) -> Option<Action> {
        let create = &world.creates[client];
        let record = &create.record;
        match create.step {
            Step::Copied if !self.has(Flaw::ActsBeforeTaken) => return Some(Action::Taken(client)),
            Step::Read => return Some(Action::Record(client)),
            Step::Took(_) => return Some(Action::Ask(client)),
            Step::Sent => return Some(Action::Note(client)),
            Step::Copied | Step::ByRecord => {}
        }
        match record.phase {
            Phase::Free if create.left.is_some() => Some(Action::Copy(client)),
            Phase::Free => create.unread.then_some(Action::Read(client)),
            Phase::Reading => Some(Action::Take(client)),
            Phase::Asking if record.heard => Some(Action::Answer(client)),
            Phase::Asking => match create.connection {
                Connection::Broken => world.engine_is_up.then_some(Action::Look(client)),
                _ if !record.told => Some(Action::Tell(client)),
                Connection::Open { answered: true, .. } => Some(Action::Hear(client)),
                _ => None,
            },
            Phase::Answering if record.sent => Some(Action::Finish(client)),
            Phase::Answering => Some(Action::Send(client)),
        }
    }

    fn of_engine(world: &World, client: usize) -> Option<Action> {
        match world.creates[client].connection {
            _ if world.creates[client].late.is_some() => Some(Action::Execute(client)),
            Connection::Open { told: true, done: false, .. } => Some(Action::Execute(client)),
            Connection::Open { done: true, answered: false, .. } => Some(Action::Reply(client)),
            _ => None,
        }
    }

    /// A worker's death, as the keeper sees it.
    fn kill(&self, world: &mut World) {
        world.worker_deaths += 1;
        for create in &mut world.creates {
            if create.left.is_none() && create.record.phase != Phase::Free {
                create.left = Some(create.record);
            }
            (create.record, create.step) = (EMPTY, Step::ByRecord);
            if self.has(Flaw::ConnectionLost) {
                lose_connection(create);
            }
        }
    }

    /// What a dead worker took and did not ask for is given back before anything is taken again.
    fn give_back(&self, world: &mut World, client: usize) {
        if self.has(Flaw::AddressLeft) {
            return;
        }
        let container = world.creates[client].container;
        for (address, owner) in world.taken.iter_mut().enumerate() {
            if *owner == Some(client as u8) && container != Some(address as u8) {
                *owner = None;
            }
        }
    }

    fn take(&self, world: &mut World, client: usize) -> Option<()> {
        self.give_back(world, client);
        let address = world.taken.iter().position(Option::is_none)?;
        world.taken[address] = Some(client as u8);
        world.creates[client].step = Step::Took(address as u8);
        Some(())
    }

    /// The engine of before has broken off: what has it done?
    fn look(&self, world: &mut World, client: usize) {
        let create = &mut world.creates[client];
        create.connection = Connection::None;
        if create.container.is_some() && !self.has(Flaw::NeverLooks) {
            create.record.heard = true;
        } else {
            create.record = Record { phase: Phase::Reading, ..EMPTY };
        }
    }
}

/// The connection ends with its worker. What the engine has been told it does all the same, in its own time.
fn lose_connection(create: &mut Create) {
    let Connection::Open { told, done, .. } = create.connection else { return };
    if told && !done {
        create.late = create.left.and_then(|left| left.address);
    }
    create.connection = Connection::Broken;
}

/// The engine has died: what it had not done it never will.
fn break_off(create: &mut Create) {
    create.late = None;
    if create.connection != Connection::None {
        create.connection = Connection::Broken;
    }
}

fn make(create: &mut Create, address: Option<u8>) {
    create.done += 1;
    create.container = address;
}

/// A connection that the engine has answered, or will.
fn changed(connection: Connection, change: impl FnOnce(&mut bool, &mut bool, &mut bool)) -> Connection {
    match connection {
        Connection::Open { mut told, mut done, mut answered } => {
            change(&mut told, &mut done, &mut answered);
            Connection::Open { told, done, answered }
        }
        other => other,
    }
}

impl Model for Custody {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let create = Create {
            unread: true,
            answers: 0,
            record: EMPTY,
            left: None,
            step: Step::ByRecord,
            connection: Connection::None,
            late: None,
            done: 0,
            container: None,
        };
        vec![World {
            creates: [create; CLIENTS],
            taken: [None; ADDRESSES],
            worker_deaths: 0,
            engine_deaths: 0,
            engine_is_up: true,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.worker_deaths < self.worker_deaths {
            actions.push(Action::Kill);
        }
        match world.engine_is_up {
            true if world.engine_deaths < self.engine_deaths => actions.push(Action::EngineDies),
            true => {}
            false => actions.push(Action::EngineReturns),
        }
        for client in 0..CLIENTS {
            actions.extend(self.of_worker(world, client));
            actions.extend(Self::of_engine(world, client));
            if world.creates[client].step == Step::Copied && self.has(Flaw::ActsBeforeTaken) {
                actions.push(Action::Taken(client));
            }
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Kill => self.kill(&mut world),
            Action::EngineDies => {
                (world.engine_is_up, world.engine_deaths) = (false, world.engine_deaths + 1);
                world.creates.iter_mut().for_each(break_off);
            }
            Action::EngineReturns => world.engine_is_up = true,
            Action::Take(client) => self.take(&mut world, client)?,
            Action::Look(client) => self.look(&mut world, client),
            Action::Copy(client)
            | Action::Taken(client)
            | Action::Read(client)
            | Action::Record(client)
            | Action::Ask(client)
            | Action::Tell(client)
            | Action::Execute(client)
            | Action::Reply(client)
            | Action::Hear(client)
            | Action::Answer(client)
            | Action::Send(client)
            | Action::Note(client)
            | Action::Finish(client) => {
                let is_up = world.engine_is_up;
                self.one(&mut world.creates[client], action, is_up)?;
            }
        }
        Some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        // What comes after a fault is of no interest.
        world.creates.iter().all(|create| create.answers + create.done <= 3)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("executed at most once", |_, world: &World| {
                world.creates.iter().all(|create| create.done <= 1)
            }),
            Property::always("answered at most once", |_, world: &World| {
                world.creates.iter().all(|create| create.answers <= 1)
            }),
            Property::always("an address is held by one", |_, world: &World| {
                let held =
                    |address: u8| world.creates.iter().filter(|one| one.container == Some(address)).count();
                (0..ADDRESSES as u8).all(|address| held(address) <= 1)
            }),
            Property::always("no address is taken in the end but a container's", |model, world: &World| {
                !is_over(model, world)
                    || world.taken.iter().flatten().count()
                        == world.creates.iter().filter(|create| create.container.is_some()).count()
            }),
            Property::eventually("every client is answered", |_, world: &World| {
                world.creates.iter().all(|create| create.answers >= 1)
            }),
            Property::sometimes("answered by the third worker", |_, world: &World| {
                world.worker_deaths == 2 && world.creates.iter().all(|create| create.answers == 1)
            }),
        ]
    }
}

impl Custody {
    /// What concerns one create alone.
    fn one(&self, create: &mut Create, action: Action, engine_is_up: bool) -> Option<()> {
        let record = &mut create.record;
        match action {
            Action::Copy(_) => (*record, create.step) = (create.left?, Step::Copied),
            Action::Taken(_) => (create.left, create.step) = (None, Step::ByRecord),
            Action::Read(_) => {
                create.unread = false;
                if self.has(Flaw::ConsumedUnrecorded) {
                    create.step = Step::Read;
                } else {
                    record.phase = Phase::Reading;
                }
            }
            Action::Record(_) => (record.phase, create.step) = (Phase::Reading, Step::ByRecord),
            Action::Ask(_) => {
                let Step::Took(address) = create.step else { return None };
                if !engine_is_up {
                    return None;
                }
                *record = Record { phase: Phase::Asking, address: Some(address), ..EMPTY };
                create.connection = Connection::Open { told: false, done: false, answered: false };
                create.step = Step::ByRecord;
            }
            Action::Tell(_) => {
                record.told = true;
                create.connection = changed(create.connection, |told, _, _| *told = true);
            }
            Action::Execute(_) if create.late.is_some() => {
                let address = create.late.take();
                make(create, address);
            }
            Action::Execute(_) => {
                create.connection = changed(create.connection, |_, done, _| *done = true);
                let address = create.record.address.or(create.left.and_then(|left| left.address));
                make(create, address);
            }
            Action::Reply(_) => {
                create.connection = changed(create.connection, |_, _, answered| *answered = true)
            }
            Action::Hear(_) => record.heard = true,
            Action::Answer(_) => record.phase = Phase::Answering,
            Action::Send(_) => {
                create.answers += 1;
                if self.has(Flaw::SentUnrecorded) {
                    create.step = Step::Sent;
                } else {
                    record.sent = true;
                }
            }
            Action::Note(_) => (record.sent, create.step) = (true, Step::ByRecord),
            Action::Finish(_) => (*record, create.connection) = (EMPTY, Connection::None),
            _ => return None,
        }
        Some(())
    }
}

/// Nothing can happen any more but deaths.
fn is_over(model: &Custody, world: &World) -> bool {
    (0..CLIENTS)
        .all(|client| model.of_worker(world, client).is_none() && Custody::of_engine(world, client).is_none())
        && world.engine_is_up
        && world.creates.iter().all(|create| create.step == Step::ByRecord && create.left.is_none())
}

#[cfg(test)]
mod tests {
    use stateright::Checker;

    use super::*;

    fn found(flaw: Option<Flaw>) -> Vec<&'static str> {
        let engine_deaths = u8::from(flaw == Some(Flaw::NeverLooks));
        let model = Custody { worker_deaths: 2, engine_deaths, flaw };
        let checker = model.checker().threads(2).spawn_bfs().join();
        println!("{flaw:?}: {} states", checker.unique_state_count());
        let is_bad = |name: &&&str| **name != "answered by the third worker";
        let mut found: Vec<_> = checker.discoveries().keys().filter(is_bad).copied().collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn every_create_is_answered_once_and_executed_at_most_once() {
        let model = Custody { worker_deaths: 3, engine_deaths: 2, flaw: None };
        let checker = model.checker().threads(2).spawn_bfs().join();
        println!("{} states", checker.unique_state_count());
        checker.assert_properties();
    }

    #[test]
    fn each_precaution_is_needed() {
        for (flaw, breaks) in [
            (Flaw::ConsumedUnrecorded, "every client is answered"),
            (Flaw::SentUnrecorded, "answered at most once"),
            (Flaw::ConnectionLost, "executed at most once"),
            (Flaw::ActsBeforeTaken, "answered at most once"),
            (Flaw::NeverLooks, "executed at most once"),
            (Flaw::AddressLeft, "no address is taken in the end but a container's"),
        ] {
            let found = found(Some(flaw));
            println!("{flaw:?} {found:?}");
            assert!(found.contains(&breaks), "{flaw:?}: {found:?}");
        }
    }
}
