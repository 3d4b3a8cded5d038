//! What the handle tells the member, and what the member asks of our book of addresses. Must never wait for an answer:
//! that is the caller's.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tokio::sync::oneshot;

use crate::claim::ClaimError;

/// What another host's claim asks of our book of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserve<'a> {
    /// Do not hand the address out: that host has it.
    For(&'a str),
    /// No other host claims it any more.
    Free,
}

/// Reserves addresses in our blocks for other hosts; refuses, naming the holder, when one is taken.
pub type Owner = Box<dyn Fn(Ipv4Addr, Reserve<'_>) -> Result<(), String> + Send>;

#[derive(Debug)]
pub(crate) enum Command {
    Publish { id: String, text: String, vips: Vec<String> },
    Withdraw { id: String },
    Told { id: String, reply: oneshot::Sender<()> },
    Settled,
    Blocks(Vec<Ipv4Net>),
    GiveBack(Ipv4Net),
    ClaimBlock { subnet: Option<Ipv4Net>, reply: oneshot::Sender<Result<Ipv4Net, ClaimError>> },
    ClaimAddress { address: Ipv4Addr, container: String, reply: oneshot::Sender<Result<(), ClaimError>> },
    HasAddress { address: Ipv4Addr, container: String },
    ReleaseAddress { address: Ipv4Addr, container: String },
    Forget { host: String, reply: oneshot::Sender<Result<(), String>> },
    Leave(oneshot::Sender<()>),
}
