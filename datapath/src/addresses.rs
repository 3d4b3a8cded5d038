//! The addresses that this host's containers hold: given to one at a time, and to none before it is known who has them.
//!
//! A copy of what the engine's labels, the kernel's routes and the ledger say. Must never give an address while any of
//! those that are in use may still be unknown, and never take one from a container that has it.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use selvedge_cluster::handle::Reserve;
pub use selvedge_netsetup::address6;
use selvedge_registry::pool::{AddressBook, AddressError, Holder};
use tokio::sync::watch;
use tracing::debug;

mod ledger;
#[cfg(test)]
mod tests;

use ledger::Claim;
pub use ledger::Ledger;

/// From where a new container's address is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// The blocks of this host.
    Any,
    /// A subnet of its own.
    Subnet(Ipv4Net),
}

/// A container that says that an address is its own.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// Its id.
    pub id: &'a str,
    /// The address.
    pub address: Ipv4Addr,
    /// The number of the create that made it.
    pub create: u64,
    /// Whether its user chose the address: then it is the container's only while it runs.
    pub fixed: bool,
}

/// The claims of containers whose engine had made them at some moment.
#[derive(Debug)]
pub struct Snapshot(Vec<(Ipv4Addr, Claim)>);

/// Who holds which address.
#[derive(Debug)]
pub struct Addresses {
    book: Mutex<AddressBook>,
    /// Nothing under a keeper of a version that does not keep one.
    ledger: Option<Ledger>,
    known: watch::Sender<bool>,
}

impl Addresses {
    /// None are taken but those that the ledger knows of.
    pub fn new(pool: Ipv4Net, block_size: u8, ledger: Option<Ledger>) -> Self {
        let known = ledger.as_ref().is_some_and(Ledger::is_complete);
        let book = Mutex::new(AddressBook::new(pool, block_size));
        Self { book, ledger, known: watch::Sender::new(known) }
    }

    // A panic of another task in here leaves plain data behind; nothing is half done that matters.
    fn lock(&self) -> MutexGuard<'_, AddressBook> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn claim(&self, address: Ipv4Addr, claim: Claim) -> bool {
        self.ledger.as_ref().is_none_or(|ledger| ledger.claim(address, claim))
    }

    fn release(&self, address: Ipv4Addr, create: u64) {
        if let Some(ledger) = &self.ledger {
            ledger.release(address, create);
        }
    }

    /// Waits until every address in use is known: from the ledger, or by a reading of the engine's whole list.
    pub async fn known(&self) {
        // The sender lives as long as we do.
        let _ = self.known.subscribe().wait_for(|known| *known).await;
    }

    /// Every address in use has been noted. True for the first time: another worker may have given some since.
    pub fn set_known(&self) -> bool {
        if let Some(ledger) = &self.ledger {
            ledger.set_complete();
        }
        !self.known.send_replace(true)
    }

    /// Takes the next free address for a create. Only after [`Addresses::known`].
    ///
    /// # Errors
    /// [`AddressError::Full`].
    pub fn take(&self, wish: Wish, create: u64) -> Result<Ipv4Addr, AddressError> {
        let (holder, claim) = (Holder::Create(create), Claim { create, made: false });
        let claiming = |address| self.claim(address, claim);
        match wish {
            Wish::Subnet(subnet) => self.lock().take_in(subnet, &holder, &claiming),
            Wish::Any => self.lock().take_next(&holder, &claiming),
        }
    }

    /// Gives the address of a create back that the engine has refused.
    pub fn give_back(&self, address: Ipv4Addr, create: u64) {
        self.lock().free(address, &Holder::Create(create));
        self.release(address, create);
    }

    /// Gives back what was taken for a create and never became a container's: its worker died, or its engine.
    pub fn give_back_all(&self, create: u64) {
        let blocks = self.lock().free_by_block();
        let ledger = self.ledger.iter();
        let taken = ledger.flat_map(|ledger| blocks.iter().flat_map(|(block, _)| ledger.taken_in(*block)));
        for (address, _) in taken.filter(|(_, claim)| claim.create == create && !claim.made) {
            self.give_back(address, create);
        }
    }

    /// Whether this can be the address of a container at all.
    ///
    /// # Errors
    /// [`AddressError::Outside`].
    pub fn check(&self, address: Ipv4Addr) -> Result<(), AddressError> {
        self.lock().check(address)
    }

    /// A container is there. One whose user chose the address is kept it free, the others have it from now on.
    ///
    /// # Errors
    /// Who else has it.
    pub fn learn(&self, claimant: Claimant<'_>) -> Result<(), Holder> {
        if claimant.fixed {
            self.lock().promise(claimant.address, claimant.id);
            return Ok(());
        }
        self.hold(claimant)
    }

    /// The container has the address from now on.
    ///
    /// # Errors
    /// Who else has it.
    pub fn hold(&self, claimant: Claimant<'_>) -> Result<(), Holder> {
        let Claimant { id, address, create, .. } = claimant;
        let holder = Holder::Container(id.to_owned());
        let mut book = self.lock();
        book.rename(address, &Holder::Create(create), holder.clone());
        book.note(address, &holder)?;
        if self.claim(address, Claim { create, made: true }) {
            return Ok(());
        }
        // Another worker has given it since we looked.
        book.free(address, &holder);
        let other = self.ledger.as_ref().and_then(|ledger| ledger.holder(address));
        Err(Holder::Create(other.map_or(0, |claim| claim.create)))
    }

    /// A container whose user chose the address has ended: it may be another's now.
    pub fn ended(&self, claimant: Claimant<'_>) {
        if claimant.fixed {
            self.let_go(claimant);
        }
    }

    /// A container has been removed.
    pub fn removed(&self, claimant: Claimant<'_>) {
        self.lock().forget_promise(claimant.address, claimant.id);
        self.let_go(claimant);
    }

    fn let_go(&self, claimant: Claimant<'_>) {
        let holder = Holder::Container(claimant.id.to_owned());
        let mut book = self.lock();
        // Only who has it lets it go: another container with the same label may be there (a copy, made past us).
        if book.holder(claimant.address) == Some(&holder) {
            book.free(claimant.address, &holder);
            self.release(claimant.address, claimant.create);
        }
    }

    /// The containers that are known by the ledger at this moment. To be taken before the engine is asked for its list.
    pub fn snapshot(&self) -> Snapshot {
        let blocks = self.lock().free_by_block();
        let ledger = self.ledger.iter();
        let claims = ledger.flat_map(|ledger| blocks.iter().flat_map(|(block, _)| ledger.taken_in(*block)));
        Snapshot(claims.filter(|(_, claim)| claim.made).collect())
    }

    /// Frees what containers had that the list no longer has: they were removed while no worker looked.
    pub fn free_stale(&self, before: Snapshot) {
        for (address, claim) in before.0 {
            let mut book = self.lock();
            if !matches!(book.holder(address), Some(Holder::Container(_))) {
                debug!(%address, "its container was removed while no worker looked");
                book.free(address, &Holder::Create(claim.create));
                self.release(address, claim.create);
            }
        }
    }

    /// Sets the blocks that this host hands out. `host` is its own address in the pool, which no container gets.
    pub fn set_blocks(&self, blocks: &[Ipv4Net], host: Option<Ipv4Addr>) {
        let mut book = self.lock();
        let had: Vec<Ipv4Net> = book.free_by_block().into_iter().map(|(block, _)| block).collect();
        for block in blocks.iter().filter(|block| !had.contains(block)) {
            for (address, claim) in self.ledger.iter().flat_map(|ledger| ledger.taken_in(*block)) {
                let _ = book.note(address, &Holder::Create(claim.create));
            }
        }
        book.set_blocks(blocks);
        if let Some(host) = host {
            let _ = book.note(host, &Holder::Host);
        }
    }

    /// Whether the address lies in a block that this host hands out.
    pub fn owns(&self, address: Ipv4Addr) -> bool {
        self.lock().owns(address)
    }

    /// Whether a container could get an address of this subnet now.
    pub fn has_room_in(&self, subnet: Ipv4Net) -> bool {
        let mut book = self.lock();
        let taken = book.take_in(subnet, &Holder::Host, &|_| true);
        taken.is_ok_and(|address| {
            book.free(address, &Holder::Host);
            true
        })
    }

    /// How many addresses of each block are free.
    pub fn free_by_block(&self) -> Vec<(Ipv4Net, u32)> {
        self.lock().free_by_block()
    }

    /// Keeps an address of ours for another host, or lets it go again.
    ///
    /// # Errors
    /// Who has it.
    pub fn reserve(&self, address: Ipv4Addr, wish: Reserve<'_>) -> Result<(), String> {
        let mut book = self.lock();
        if let Some(holder @ Holder::Elsewhere(_)) = book.holder(address).cloned() {
            book.free(address, &holder);
        }
        match wish {
            Reserve::For(host) => {
                let elsewhere = Holder::Elsewhere(host.to_owned());
                book.note(address, &elsewhere).map_err(|holder| holder.to_string())
            }
            Reserve::Free => Ok(()),
        }
    }

    /// Notes the addresses of the pool that the kernel routes to interfaces other than our wires: no container gets those.
    pub fn set_foreign(&self, routed: &[(Ipv4Addr, String)]) {
        let mut book = self.lock();
        for (address, interface) in routed {
            let _ = book.note(*address, &Holder::Interface(interface.clone()));
        }
        for (address, holder) in book.interfaces() {
            if routed.iter().all(|(routed, _)| *routed != address) {
                book.free(address, &holder);
            }
        }
    }

    /// Goes on some addresses further: an earlier worker without a ledger may have given the next ones a moment ago.
    pub fn leap(&self) {
        // More creates than that at once would queue in the engine.
        const IN_FLIGHT: u32 = 32;
        let mut book = self.lock();
        if book.taken() > 0 {
            book.leap(IN_FLIGHT);
        }
    }

    /// How many addresses are taken.
    pub fn taken(&self) -> usize {
        self.lock().taken()
    }
}
