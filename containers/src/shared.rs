//! What all that looks after containers shares. Put together once; must never know who starts a container.

use std::sync::Arc;
use std::time::Duration;

use selvedge_datapath::addresses::Addresses;
use selvedge_datapath::health::Fault;
use selvedge_engine::client::Engine;
use selvedge_engine::lifetime::Life;
use selvedge_engine::wording::Wordings;
use selvedge_registry::name::Name;
use tokio::sync::watch;

use crate::host::Host;
use crate::label::LABEL;
use crate::store::Book;

/// What containers are given on this host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The DNS domain.
    pub domain: Name,
    /// Whether apps also have the names that Mesos-DNS gives them.
    pub mesos: bool,
    /// Whether tenants are kept apart: then addresses on the engine's own networks are judged, too.
    pub by_tenant: bool,
    /// For how long a container that is to be stopped goes on before it hears of it.
    pub drain: Duration,
    /// Whether this host has no others.
    pub alone: bool,
}

/// Our containers, and all that it takes to look after them.
#[derive(Debug)]
pub struct Containers {
    /// What they are given.
    pub settings: Settings,
    /// What is known of them.
    pub book: Arc<Book>,
    /// Our own calls to the engine.
    pub engine: Engine,
    /// What was seen of the engine's life.
    pub life: Life,
    /// The engine's words for missing programs.
    pub wordings: Wordings,
    /// The host that they run on.
    pub host: Arc<dyn Host>,
    /// Who has which address.
    pub addresses: Arc<Addresses>,
    /// Whether the host's firewalls let containers' packets pass.
    pub firewalls: Fault,
    followed: watch::Sender<bool>,
}

impl Containers {
    /// None are known but those of the book.
    pub fn new(settings: Settings, book: Arc<Book>, engine: Engine, host: Arc<dyn Host>) -> Self {
        Self {
            settings,
            engine,
            life: Life::default(),
            wordings: Wordings::new(LABEL),
            addresses: Arc::clone(&book.addresses),
            host,
            book,
            firewalls: Fault::with("the host's firewalls"),
            followed: watch::Sender::new(false),
        }
    }

    /// Notes whether the engine is followed; gives back what was noted before.
    pub fn set_followed(&self, followed: bool) -> bool {
        self.followed.send_replace(followed)
    }

    /// Whether the engine is followed.
    pub fn is_followed(&self) -> bool {
        *self.followed.borrow()
    }
}
