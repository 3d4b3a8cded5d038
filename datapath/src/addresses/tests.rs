//! An address is given to one, whatever happens when: workers that come, leave and die, an engine that makes containers long
//! after they were asked for, lists that are old when they are read, events that come late or never.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use futures_util::FutureExt;
use nix::sys::memfd::{MFdFlags, memfd_create};
use proptest::prelude::*;

use super::*;

fn block() -> Ipv4Net {
    "10.32.0.0/28".parse().unwrap()
}

/// A container, or one that the engine was asked for and has not made yet.
#[derive(Debug, Clone)]
struct Container {
    create: u64,
    address: Ipv4Addr,
    made: bool,
    /// The worker that asked for it, while that one lives.
    asked_by: Option<u64>,
}

fn claimant<'a>(id: &'a str, container: &Container) -> Claimant<'a> {
    Claimant { id, address: container.address, create: container.create, fixed: false }
}

fn id(create: u64) -> String {
    format!("{create:064x}")
}

/// How far a worker's first reading is.
#[derive(Debug)]
enum Reading {
    None,
    Began(Snapshot),
    Listed(Snapshot, Vec<Container>),
}

#[derive(Debug)]
struct Worker {
    number: u64,
    addresses: Addresses,
    reading: Reading,
}

#[derive(Debug)]
struct Scene {
    memory: OwnedFd,
    next: u64,
    workers: Vec<Worker>,
    engine: BTreeMap<u64, Container>,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self {
            memory: memfd_create(c"ledger", MFdFlags::empty()).unwrap(),
            next: 1,
            workers: Vec::new(),
            engine: BTreeMap::new(),
        };
        scene.begin();
        scene
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn begin(&mut self) {
        if self.workers.len() == 2 {
            return;
        }
        let memory = self.memory.try_clone().unwrap();
        let addresses =
            Addresses::new("10.32.0.0/12".parse().unwrap(), 28, Some(Ledger::open(memory).unwrap()));
        addresses.set_blocks(&[block()], None);
        let number = self.number();
        self.workers.push(Worker { number, addresses, reading: Reading::None });
    }

    /// What the engine still owes it is never answered: there is nothing left that waits for it.
    fn die(&mut self, which: usize) {
        if self.workers.is_empty() {
            return;
        }
        let dead = self.workers.remove(which % self.workers.len()).number;
        let asked = self.engine.values_mut().filter(|container| container.asked_by == Some(dead));
        asked.for_each(|container| container.asked_by = None);
    }

    /// One step of a worker's reading of the engine's list.
    fn read(&mut self, which: usize) {
        let Some(count) = Some(self.workers.len()).filter(|count| *count > 0) else { return };
        let worker = &mut self.workers[which % count];
        let addresses = &worker.addresses;
        worker.reading = match std::mem::replace(&mut worker.reading, Reading::None) {
            Reading::None => Reading::Began(addresses.snapshot()),
            Reading::Began(before) => {
                let made = self.engine.values().filter(|container| container.made);
                Reading::Listed(before, made.cloned().collect())
            }
            Reading::Listed(before, list) => {
                for container in list {
                    let _ = addresses.learn(claimant(&id(container.create), &container));
                }
                addresses.free_stale(before);
                addresses.set_known();
                Reading::None
            }
        };
    }

    fn create(&mut self, which: usize) {
        let create = self.number();
        let Some(count) = Some(self.workers.len()).filter(|count| *count > 0) else { return };
        let worker = &self.workers[which % count];
        if worker.addresses.known().now_or_never().is_none() {
            return;
        }
        let Ok(address) = worker.addresses.take(Wish::Any, create) else { return };
        let asked_by = Some(worker.number);
        self.engine.insert(create, Container { create, address, made: false, asked_by });
    }

    fn nth(&self, which: usize, made: bool) -> Option<Container> {
        let fitting: Vec<&Container> =
            self.engine.values().filter(|container| container.made == made).collect();
        fitting.get(which % fitting.len().max(1)).map(|container| (*container).clone())
    }

    /// The engine answers a create, long after it was asked perhaps.
    fn answer(&mut self, which: usize, yes: bool) {
        let Some(container) = self.nth(which, false) else { return };
        let asker = self.workers.iter().find(|worker| Some(worker.number) == container.asked_by);
        if yes {
            self.engine.get_mut(&container.create).unwrap().made = true;
            let told =
                asker.map(|worker| worker.addresses.learn(claimant(&id(container.create), &container)));
            assert!(told.is_none_or(|told| told.is_ok()), "{container:?}");
        } else {
            self.engine.remove(&container.create);
            if let Some(worker) = asker {
                worker.addresses.give_back(container.address, container.create);
            }
        }
    }

    /// A container is removed; the workers hear of it, or not.
    fn remove(&mut self, which: usize, heard: bool) {
        let Some(container) = self.nth(which, true) else { return };
        self.engine.remove(&container.create);
        for worker in self.workers.iter().filter(|_| heard) {
            worker.addresses.removed(claimant(&id(container.create), &container));
        }
    }

    fn check(&self) {
        let mut seen = BTreeMap::new();
        for container in self.engine.values() {
            if let Some(other) = seen.insert(container.address, container) {
                panic!("{other:?} and {container:?} have one address");
            }
        }
    }

    fn step(&mut self, (what, which): (u8, u8)) {
        let which = usize::from(which);
        match what {
            0 => self.begin(),
            1 => self.die(which),
            2..=4 => self.read(which),
            5..=7 => self.create(which),
            8 | 9 => self.answer(which, true),
            10 => self.answer(which, false),
            11 => self.remove(which, true),
            _ => self.remove(which, false),
        }
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn an_address_in_use_is_given_to_nobody_else(steps in proptest::collection::vec((0u8..13, any::<u8>()), 1..120)) {
        let mut scene = Scene::new();
        for step in steps {
            scene.step(step);
        }
    }
}

#[test]
fn nothing_is_given_before_it_is_known_who_has_what() {
    let mut scene = Scene::new();
    scene.create(0);
    assert!(scene.engine.is_empty(), "neither the ledger nor the list is known");
    (0..3).for_each(|_| scene.read(0));
    scene.create(0);
    assert_eq!(scene.engine.len(), 1);
    // The next worker knows it by the ledger, and need not wait for an engine that is slow or stopped.
    scene.die(0);
    scene.begin();
    scene.create(0);
    assert_eq!(scene.engine.len(), 2);
    scene.check();
}

#[test]
fn what_was_removed_while_no_worker_looked_is_free_again() {
    let mut scene = Scene::new();
    (0..3).for_each(|_| scene.read(0));
    while scene.engine.len() < 15 {
        scene.create(0);
        scene.answer(0, true);
    }
    scene.create(0);
    assert_eq!(scene.engine.len(), 15, "full");
    scene.die(0);
    scene.remove(0, false);
    scene.begin();
    (0..3).for_each(|_| scene.read(0));
    scene.create(0);
    assert_eq!(scene.engine.len(), 15);
}

#[test]
fn a_chosen_address_is_a_containers_while_it_runs() {
    let addresses = Addresses::new("10.32.0.0/12".parse().unwrap(), 28, None);
    addresses.set_blocks(&[block()], None);
    let address = Ipv4Addr::new(10, 32, 0, 1);
    let of = |id: &'static str, create| Claimant { id, address, create, fixed: true };
    addresses.learn(of("old", 1)).unwrap();
    addresses.learn(of("new", 2)).unwrap();
    assert_ne!(addresses.take(Wish::Any, 3).unwrap(), address, "neither runs, and it is theirs all the same");
    addresses.hold(of("old", 1)).unwrap();
    assert_eq!(addresses.hold(of("new", 2)), Err(Holder::Container("old".to_owned())));
    addresses.ended(of("old", 1));
    addresses.hold(of("new", 2)).unwrap();
    addresses.removed(of("old", 1));
    assert_eq!(addresses.hold(of("old", 1)), Err(Holder::Container("new".to_owned())));
}
