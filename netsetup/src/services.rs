//! Virtual addresses in the kernel: one nftables table of ours sends each new connection to an instance.
//!
//! The kernel chooses once per connection (conntrack remembers), so connections stay where they are when instances come
//! and go. The wanted state is recorded as a whole, and only the difference is sent, as one transaction. Must never
//! touch a table that is not this Selvedge's, and knows nothing about permissions: the policy judges the redirected
//! packets.

mod have;
mod service;
mod wanted;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use crate::conntrack::{self, Tuple, Which};
use crate::error::Error;
use crate::pool6::block6;
use crate::services::have::Have;
pub use crate::services::service::{Service, ServicesSettings};
use crate::services::wanted::{Led, Wanted};
use crate::{generation, nft};

/// IPPROTO_TCP and IPPROTO_UDP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The virtual addresses of one Selvedge on this host. Everything happens in the network namespace of the calling
/// thread.
#[derive(Debug, Clone)]
pub struct Services {
    settings: Arc<ServicesSettings>,
    /// None means not recorded yet: what an earlier worker left stays as it is.
    wanted: Arc<Mutex<Option<Arc<Wanted>>>>,
    /// Its holder talks to the kernel: one at a time.
    kernel: Arc<tokio::sync::Mutex<Kernel>>,
}

/// What is known about the kernel's side.
#[derive(Debug, Default)]
struct Kernel {
    /// `None` means not read yet, or no longer certain.
    have: Option<Have>,
    /// The kernel's generation when `have` was true.
    generation: Option<u32>,
    /// Where TCP and UDP were sent when stale entries were last deleted.
    tcp: BTreeSet<Led>,
    udp: BTreeSet<Led>,
}

impl Services {
    /// Stores the settings; does not ask the kernel yet.
    #[must_use]
    pub fn new(settings: ServicesSettings) -> Self {
        Self { settings: Arc::new(settings), wanted: Arc::default(), kernel: Arc::default() }
    }

    /// Sets all virtual addresses, replacing the earlier ones; and the containers that stand aside for now, which are
    /// only recorded for our successor ([`Services::aside`]). In force after the next [`Services::apply`].
    pub fn set(&self, services: &[Service], aside: &[Ipv4Addr]) {
        let wanted = Arc::new(Wanted::new(&self.settings, services, aside));
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
    }

    fn wanted(&self) -> Option<Arc<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns once the last recorded state is in force.
    ///
    /// # Errors
    /// [`Error::Nft`]; the state stays recorded, for the next time.
    pub async fn apply(&self) -> Result<(), Error> {
        let services = self.clone();
        nft::to_the_end(async move {
            let mut kernel = services.kernel.lock().await;
            match services.send(&mut kernel).await {
                Ok(_) => Ok(()),
                // An outside change may have invalidated the difference: read the table and try once more.
                Err(_) => services.send(&mut kernel).await.map(drop),
            }
        })
        .await
    }

    /// Checks for outside changes to the rules, and repairs them; returns the number of repairs.
    ///
    /// # Errors
    /// [`Error::Nft`], or the kernel does not answer.
    pub async fn check(&self) -> Result<u64, Error> {
        let services = self.clone();
        nft::to_the_end(async move {
            let mut kernel = services.kernel.lock().await;
            let now = nft::blocking(generation::now).await?;
            if kernel.have.is_some() && kernel.generation == Some(now) {
                return Ok(0);
            }
            kernel.have = None;
            services.send(&mut kernel).await
        })
        .await
    }

    /// What [`Services::check`] would do now, as lines for operators; empty when all is right.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn plan(&self) -> Result<Vec<String>, Error> {
        let settings = Arc::clone(&self.settings);
        let have = nft::blocking(move || Have::read(&wanted::table_name(&settings))).await?;
        let Some(wanted) = self.wanted() else { return Ok(Vec::new()) };
        Ok(wanted.difference(&have).text.lines().map(|line| format!("nft {line}")).collect())
    }

    /// The containers that an earlier worker had standing aside.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn aside(&self) -> Result<Vec<Ipv4Addr>, Error> {
        let name = wanted::table_name(&self.settings);
        let have = nft::blocking(move || Have::read(&name)).await?;
        Ok(have.sets.get(wanted::ASIDE).into_iter().flatten().filter_map(|text| text.parse().ok()).collect())
    }

    async fn send(&self, kernel: &mut Kernel) -> Result<u64, Error> {
        let Some(wanted) = self.wanted() else { return Ok(0) };
        if kernel.have.is_none() {
            let name = wanted::table_name(&self.settings);
            let read = move || Ok((generation::now()?, Have::read_awake(&name)?));
            let (generation, have) = nft::blocking(read).await?;
            (kernel.generation, kernel.have) = (Some(generation), Some(have));
        }
        let Some(have) = &kernel.have else { return Ok(0) };
        let difference = wanted.difference(have);
        if !difference.text.is_empty() {
            let before = kernel.generation;
            // Uncertain until it is done.
            kernel.have = None;
            kernel.generation = nft::blocking(move || nft::transact(&difference.text, before)).await?;
            kernel.have = Some(wanted.fulfilled());
        }
        if kernel.udp != *wanted.udp() {
            self.let_go(UDP, &wanted).await?;
            kernel.udp.clone_from(wanted.udp());
        }
        if kernel.tcp != *wanted.tcp() {
            self.let_go(TCP, &wanted).await?;
            kernel.tcp.clone_from(wanted.tcp());
        }
        Ok(difference.count)
    }

    /// A UDP client has no connection that could end: its entry is deleted once its instance takes no more, so that it is
    /// sent to another. So is that of a TCP client whose first packet the instance never took (its queue was full,
    /// say): it sends that again after a second or more, when the instance may be gone.
    async fn let_go(&self, protocol: u8, wanted: &Arc<Wanted>) -> Result<(), Error> {
        let (wanted, settings) = (Arc::clone(wanted), Arc::clone(&self.settings));
        let ours = move |address: IpAddr| match address {
            IpAddr::V4(four) => settings.range.contains(&four),
            IpAddr::V6(six) => {
                settings.pool6.is_some_and(|pool6| block6(pool6, settings.range).contains(&six))
            }
        };
        let is_over = move |asked: Tuple, answered: Tuple| {
            let led = if protocol == UDP { wanted.udp() } else { wanted.tcp() };
            asked.protocol == protocol && ours(asked.to.0) && !led.contains(&(asked.to, answered.from))
        };
        let which = if protocol == UDP { Which::All } else { Which::Unanswered };
        nft::blocking(move || conntrack::forget(which, is_over)).await.map(drop)
    }

    /// Removes the table, if it exists.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn withdraw(&self) -> Result<(), Error> {
        let mut kernel = self.kernel.lock().await;
        let name = wanted::table_name(&self.settings);
        *kernel = Kernel::default();
        nft::blocking(move || match Have::read(&name)?.there {
            true => nft::run(&format!("delete table inet {name}\n")),
            false => Ok(()),
        })
        .await
    }
}
