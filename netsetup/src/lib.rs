//! Puts wires in and takes them out: the veth pair, the address and the routes that connect one container. And leads
//! packets to the containers of other hosts.
//!
//! All state is the kernel's: a wire is found by its name and link group, and is known to be complete by a mark on
//! its host end, so that any process can go on where another one stopped. Must never write a file (but for
//! /proc/sys), never know what Docker is (but for one iptables chain), and never block the thread that calls it:
//! netlink waits for the kernel's rtnl lock inside sendmsg(2), so it happens on threads of its own.

mod conntrack;
mod device;
mod error;
mod fabric;
mod firewall;
mod generation;
mod host;
mod identity;
mod lane;
mod leading;
mod netlink;
mod netns;
mod network;
mod nft;
pub mod policy;
mod pool6;
mod preflight;
mod program;
mod query;
mod removal;
pub mod services;
mod sysctl;
mod underlay;
mod wire;

pub use crate::error::Error;
pub use crate::fabric::{Datapath, Fabric, Peer};
pub use crate::identity::{CONTAINER_INTERFACE, SIGN_PROTOCOL, container_mac_text, host_interface};
pub use crate::netns::inode_of;
pub use crate::network::{Network, Settings, Wire, WireSpec};
pub use crate::pool6::address6;
pub use crate::preflight::{Finding, Severity, preflight};
