//! What all tasks of the DNS thread share. Plain data; must never be sent to another thread.

use std::rc::Rc;
use std::sync::Arc;

use selvedge_registry::shared::SharedTable;

use crate::forward::Forwarder;
use crate::handler::Handler;
use crate::settings::Limits;
use crate::stats::Stats;

/// What all tasks of the thread share.
pub(crate) struct Shared {
    pub(crate) table: SharedTable,
    pub(crate) handler: Handler,
    pub(crate) forwarder: Rc<Forwarder>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) limits: Limits,
}
