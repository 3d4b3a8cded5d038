//! News turned into routes, rules and virtual addresses; and the addresses that this host gives. Must never know of the
//! engine or its containers: it is told of addresses and records.

pub mod addresses;
mod aside;
pub mod blocks;
pub mod directory;
pub mod follow;
pub mod health;
pub mod host;
pub mod kernel;
mod letter;
pub mod policy;
pub mod pool_claim;
pub mod routes;
pub mod settings;
pub mod status;
pub mod synced;
pub mod vip;
