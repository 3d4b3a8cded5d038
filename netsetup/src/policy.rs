//! Which containers may talk to each other, as one nftables table of ours.
//!
//! The wanted rules are noted (`wanted`), the kernel's are known or read back (`have`), and only the difference is sent,
//! as one transaction. Must never touch a table that is not this Selvedge's, and never take out what another worker of it
//! may have put in a moment ago.

mod difference;
mod have;
mod memory;
mod party;
mod refusal;
pub(crate) mod rules;
mod strange;
mod wanted;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::policy::difference::Difference;
use crate::policy::have::Have;
pub use crate::policy::party::{Grant, Party, PolicySettings, Ports, Protocol, Verdict, Who};
pub use crate::policy::refusal::{Call, Refusal, Rule};
use crate::policy::rules::Base;
use crate::policy::wanted::Wanted;
use crate::sysctl::{self, Setting};
use crate::{generation, nft};

/// What is strange must have been so for this long before it goes: during an upgrade another worker may know it.
const STRANGE_FOR: Duration = Duration::from_millis(900);
/// Reading the table may take this part of the time: one in so many. nft reads all of it, whatever it is asked for.
const READING: u32 = 10;

/// The rules of one Selvedge on this host. All of it happens in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Policy {
    base: Arc<Base>,
    wanted: Arc<Mutex<Wanted>>,
    /// Who holds it talks to the kernel: one at a time.
    kernel: Arc<tokio::sync::Mutex<Kernel>>,
}

/// What is known of the kernel's side.
#[derive(Debug, Default)]
struct Kernel {
    /// `None` = not read yet.
    have: Option<Have>,
    /// The kernel's generation when `have` was true.
    generation: Option<u32>,
    /// Something may be wrong, whatever the generation says.
    suspicious: bool,
    /// Everything has been noted once.
    settled: bool,
    strange_since: Option<Instant>,
    /// Before this the table is not read again.
    read_at: Option<Instant>,
}

impl Policy {
    /// Notes the settings; the kernel is not asked yet.
    #[must_use]
    pub fn new(settings: PolicySettings) -> Self {
        let wanted = Arc::new(Mutex::new(Wanted::new(settings.pool6)));
        Self { base: Arc::new(Base::new(settings)), wanted, kernel: Arc::default() }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A party is there, in place of the one with its id. It is in force after the next [`Policy::apply`].
    pub fn put(&self, id: &str, party: Party) {
        self.wanted().put(id, party);
    }

    /// A party is not there any more.
    pub fn remove(&self, id: &str) {
        self.wanted().remove(id);
    }

    /// The hosts' own addresses inside the pool; the IPv6 ones follow.
    pub fn set_hosts(&self, addresses: &BTreeSet<Ipv4Addr>) {
        self.wanted().set_hosts(addresses);
    }

    /// All parties have been put once: what else the kernel has is old, and goes when it has been strange for a while.
    pub async fn settled(&self) {
        let mut kernel = self.kernel.lock().await;
        if !std::mem::replace(&mut kernel.settled, true) {
            kernel.suspicious = true;
        }
    }

    /// Goes on with the rules that an earlier worker left; whether there were any. Where there are none, they are only
    /// tried: before all parties have been put, they would refuse whomever they do not know yet.
    ///
    /// # Errors
    /// [`Error::Nft`]: the rules cannot be put in force here.
    pub async fn begin(&self) -> Result<bool, Error> {
        let base = Arc::clone(&self.base);
        if nft::blocking(move || have::is_there(&base)).await? {
            return self.apply().await.map(|()| true);
        }
        let text = difference::whole(&self.base, &self.wanted(), &Have::default(), false).text;
        nft::blocking(move || nft::check(&text)).await.map(|()| false)
    }

    /// Returns when all that was noted before is in force. Those who wait at the same time share a transaction.
    ///
    /// # Errors
    /// [`Error::Nft`]; what was noted stays noted, for the next time.
    pub async fn apply(&self) -> Result<(), Error> {
        let policy = self.clone();
        nft::to_the_end(async move {
            let mut kernel = policy.kernel.lock().await;
            match policy.send(&mut kernel).await {
                Ok(()) => Ok(()),
                // The table may have been changed from outside since it was read: read it, and send once more.
                Err(_) => policy.send(&mut kernel).await,
            }
        })
        .await
    }

    async fn send(&self, kernel: &mut Kernel) -> Result<(), Error> {
        if kernel.have.is_none() {
            self.read(kernel).await?;
        }
        let Some(have) = &kernel.have else { return Ok(()) };
        let difference = difference::noted(&self.base, &mut self.wanted(), have);
        match difference.text.is_empty() {
            true => Ok(()),
            false => self.transact(kernel, difference).await.map(drop),
        }
    }

    /// Makes it so; gives the number of things that were changed.
    async fn transact(&self, kernel: &mut Kernel, difference: Difference) -> Result<u64, Error> {
        let Difference { text, after, count, .. } = difference;
        let before = kernel.generation;
        match nft::blocking(move || nft::transact(&text, before)).await {
            Ok(generation) => kernel.generation = generation,
            Err(error) => {
                // What the kernel has is not sure any more.
                kernel.have = None;
                return Err(error);
            }
        }
        if let Some(have) = &mut kernel.have {
            have.become_so(after);
        }
        Ok(count)
    }

    /// Reads what an earlier worker left.
    async fn read(&self, kernel: &mut Kernel) -> Result<(), Error> {
        let base = Arc::clone(&self.base);
        let (have, generation) = nft::blocking(move || {
            sysctl::ensure(&bridges()).map_err(crate::error::Failure::of_host)?;
            let generation = generation::now()?;
            Ok((Have::read_awake(&base)?, generation))
        })
        .await?;
        kernel.have = Some(have);
        kernel.generation = Some(generation);
        kernel.suspicious = true;
        self.wanted().touch_all();
        Ok(())
    }

    /// Checks for outside changes to the rules and repairs them; returns the number of repairs.
    /// Costs one question to the kernel when nothing has happened anywhere.
    ///
    /// # Errors
    /// [`Error::Nft`], or the kernel does not say.
    pub async fn check(&self) -> Result<u64, Error> {
        let policy = self.clone();
        nft::to_the_end(async move { policy.repair().await }).await
    }

    async fn repair(&self) -> Result<u64, Error> {
        let mut kernel = self.kernel.lock().await;
        let now = nft::blocking(generation::now).await?;
        // What was noted and not sent yet is no outside change.
        let unsent = kernel.have.is_none() || self.wanted().touched.is_some();
        if unsent {
            return self.send(&mut kernel).await.map(|()| 0);
        }
        if kernel.generation == Some(now) && !kernel.suspicious {
            return Ok(0);
        }
        let read = self.look(&mut kernel).await?;
        let Some(have) = &kernel.have else { return Ok(0) };
        let may_remove =
            kernel.settled && kernel.strange_since.is_some_and(|since| since.elapsed() >= STRANGE_FOR);
        let (difference, noted) = {
            let wanted = self.wanted();
            (difference::whole(&self.base, &wanted, have, may_remove), wanted.touched.is_some())
        };
        kernel.strange_since = difference.strange.then(|| kernel.strange_since.unwrap_or_else(Instant::now));
        kernel.suspicious = difference.strange || !read;
        kernel.generation = Some(now);
        if difference.text.is_empty() {
            return Ok(0);
        }
        // Nor is what was noted while the table was read.
        self.transact(&mut kernel, difference).await.map(|count| if noted { 0 } else { count })
    }

    /// Reads the table, if that is not too often for its size; else sees at least whether there is one. Says whether
    /// all is known now.
    async fn look(&self, kernel: &mut Kernel) -> Result<bool, Error> {
        let base = Arc::clone(&self.base);
        let due = kernel.read_at.is_none_or(|at| Instant::now() >= at);
        if due {
            let began = Instant::now();
            kernel.have = Some(nft::blocking(move || Have::read_awake(&base)).await?);
            kernel.read_at = Some(Instant::now() + began.elapsed() * READING);
        } else if !nft::blocking(move || have::is_there(&base)).await? {
            kernel.have = Some(Have::default());
            return Ok(true);
        }
        Ok(due)
    }

    /// What [`Policy::check`] would do now, as lines for people; empty when all is right.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn plan(&self) -> Result<Vec<String>, Error> {
        let kernel = self.kernel.lock().await;
        let base = Arc::clone(&self.base);
        let Ok(have) = nft::blocking(move || Have::read(&base)).await else {
            return Ok(vec![format!("nft {}", self.base.wake().trim_end())]);
        };
        let difference = difference::whole(&self.base, &self.wanted(), &have, kernel.settled);
        Ok(difference.text.lines().map(|line| format!("nft {line}")).collect())
    }

    /// Takes the table out, if it is there: everybody may talk to everybody.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn withdraw(&self) -> Result<(), Error> {
        let mut kernel = self.kernel.lock().await;
        let base = Arc::clone(&self.base);
        nft::blocking(move || match have::is_there(&base)? {
            true => nft::run(&format!("delete table {}\n", base.table)),
            false => Ok(()),
        })
        .await?;
        *kernel = Kernel::default();
        Ok(())
    }
}

/// The nft that would be used, by its own words; nothing if this machine has none.
#[must_use]
pub fn nft_version() -> Option<String> {
    nft::version()
}

/// So that the rules see what passes from port to port of a bridge of the engine's.
fn bridges() -> Vec<Setting> {
    let names = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
    let setting = |name| Setting {
        step: "let the rules see packets on bridges",
        path: format!("bridge/{name}"),
        value: "1",
        optional: true,
    };
    names.map(setting).into()
}
