//! Virtual addresses in the kernel: each new connection to one is led to an instance, by one nftables table of ours.
//!
//! The kernel chooses once per connection (conntrack remembers), so connections stay where they are when instances come
//! and go. What shall be is noted as a whole, and only the difference is sent, as one transaction. Must never touch a
//! table that is not this Selvedge's, and knows nothing of who may call whom: the policy judges what this leads somewhere.

mod have;
mod wanted;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::conntrack::{self, Tuple};
use crate::error::Error;
use crate::policy::Protocol;
use crate::pool6::block6;
use crate::services::have::Have;
use crate::services::wanted::{Led, Wanted};
use crate::{generation, nft};

/// IPPROTO_UDP.
const UDP: u8 = 17;

/// What does not change while a worker lives.
#[derive(Debug, Clone)]
pub struct ServicesSettings {
    /// The link group of our wires' host ends; also names the table.
    pub group: u32,
    /// All virtual addresses; a part of the pool.
    pub range: Ipv4Net,
    /// The network of IPv6 addresses, if containers have such: virtual addresses then do too.
    pub pool6: Option<Ipv6Net>,
}

/// One port of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The virtual address; the IPv6 one follows.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where new connections go, each as often as the others. Nobody = they are refused.
    pub backends: Vec<(Ipv4Addr, u16)>,
}

/// The virtual addresses of one Selvedge on this host. All of it happens in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Services {
    settings: Arc<ServicesSettings>,
    /// Nothing = not noted yet: what an earlier worker left stays as it is.
    wanted: Arc<Mutex<Option<Arc<Wanted>>>>,
    /// Who holds it talks to the kernel: one at a time.
    kernel: Arc<tokio::sync::Mutex<Kernel>>,
}

/// What is known of the kernel's side.
#[derive(Debug, Default)]
struct Kernel {
    /// `None` = not read yet, or not sure any more.
    have: Option<Have>,
    /// The kernel's generation when `have` was true.
    generation: Option<u32>,
    /// Where UDP was led, when it was last seen to that nobody is led elsewhere.
    udp: BTreeSet<Led>,
}

impl Services {
    /// Notes the settings; the kernel is not asked yet.
    #[must_use]
    pub fn new(settings: ServicesSettings) -> Self {
        Self { settings: Arc::new(settings), wanted: Arc::default(), kernel: Arc::default() }
    }

    /// All virtual addresses, in place of those before; and containers that stand aside for now, which is only noted for
    /// who comes after us ([`Services::aside`]). In force after the next [`Services::apply`].
    pub fn set(&self, services: &[Service], aside: &[Ipv4Addr]) {
        let wanted = Arc::new(Wanted::new(&self.settings, services, aside));
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted);
    }

    fn wanted(&self) -> Option<Arc<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when what was noted last is in force.
    ///
    /// # Errors
    /// [`Error::Nft`]; what was noted stays noted, for the next time.
    pub async fn apply(&self) -> Result<(), Error> {
        let services = self.clone();
        nft::to_the_end(async move {
            let mut kernel = services.kernel.lock().await;
            match services.send(&mut kernel).await {
                Ok(_) => Ok(()),
                // Somebody may have changed what this was the difference to: once more, with a look first.
                Err(_) => services.send(&mut kernel).await.map(drop),
            }
        })
        .await
    }

    /// Looks whether somebody has changed the rules, and makes them right; gives the number of things that were not.
    ///
    /// # Errors
    /// [`Error::Nft`], or the kernel does not say.
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

    /// What [`Services::check`] would do now, as lines for people; empty when all is right.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn plan(&self) -> Result<Vec<String>, Error> {
        let settings = Arc::clone(&self.settings);
        let have = nft::blocking(move || Have::read(&wanted::table_name(&settings))).await?;
        let Some(wanted) = self.wanted() else { return Ok(Vec::new()) };
        Ok(wanted.difference(&have).text.lines().map(|line| format!("nft {line}")).collect())
    }

    /// The containers that stood aside when an earlier worker looked last.
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
            // Not sure any more, until it is done.
            kernel.have = None;
            kernel.generation = nft::blocking(move || nft::transact(&difference.text, before)).await?;
            kernel.have = Some(wanted.fulfilled());
        }
        if kernel.udp != *wanted.udp() {
            self.let_go(&wanted).await?;
            kernel.udp.clone_from(wanted.udp());
        }
        Ok(difference.count)
    }

    /// Who asks by UDP has no connection that could end: it is led anew when whom it asked is gone.
    async fn let_go(&self, wanted: &Arc<Wanted>) -> Result<(), Error> {
        let (wanted, settings) = (Arc::clone(wanted), Arc::clone(&self.settings));
        let ours = move |address: IpAddr| match address {
            IpAddr::V4(four) => settings.range.contains(&four),
            IpAddr::V6(six) => {
                settings.pool6.is_some_and(|pool6| block6(pool6, settings.range).contains(&six))
            }
        };
        let is_over = move |asked: Tuple, answered: Tuple| {
            asked.protocol == UDP && ours(asked.to.0) && !wanted.udp().contains(&(asked.to, answered.from))
        };
        nft::blocking(move || conntrack::forget(is_over)).await.map(drop)
    }

    /// Takes the table out, if it is there.
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
