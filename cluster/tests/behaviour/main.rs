//! What must hold with any registry: one list of behaviours, run against ZooKeeper and etcd themselves and against the
//! one in memory.
//!
//! The servers are Debian's, started by these tests on loopback and ended with them. Must never be skipped: without the
//! packages zookeeperd and etcd-server these tests fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod blocks;
mod hosts;
mod lab;
mod names;
mod property;
mod servers;
mod tls;
mod vips;

/// A test for each kind of registry.
macro_rules! with_any_registry {
    ($($name:ident),* $(,)?) => {
        mod memory { $(#[test] fn $name() { crate::lab::run(super::$name, crate::lab::Kind::Memory, stringify!($name)); })* }
        mod zookeeper { $(#[test] fn $name() { crate::lab::run(super::$name, crate::lab::Kind::Zookeeper, stringify!($name)); })* }
        mod etcd { $(#[test] fn $name() { crate::lab::run(super::$name, crate::lab::Kind::Etcd, stringify!($name)); })* }
    };
}
pub(crate) use with_any_registry;
