//! Makes and removes wires: the veth pair, the address and the routes that connect one container. Also routes packets
//! to the containers of other hosts.
//!
//! All state is the kernel's: a wire is found by its name and link group, and a mark on its host end shows that it is
//! complete, so that any process can continue where another one stopped. Must never write a file (except in /proc/sys),
//! never know what Docker is (except for one iptables chain), and never block the calling thread: netlink waits for the
//! kernel's rtnl lock inside sendmsg(2), so it runs on separate threads.

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
mod settings;
mod sources;
mod sysctl;
mod underlay;
mod wire;

pub use crate::error::Error;
pub use crate::fabric::{Datapath, Fabric, Peer};
pub use crate::identity::{CONTAINER_INTERFACE, SIGN_PROTOCOL, container_mac_text, host_interface};
pub use crate::netns::inode_of;
pub use crate::network::Network;
pub use crate::pool6::address6;
pub use crate::preflight::{Finding, Severity, preflight};
pub use crate::settings::Settings;
pub use crate::wire::spec::{Wire, WireSpec};
