//! Two hosts that share a registry in memory: each claims a block, and sees the other's.
//!
//! `cargo run -p selvedge-cluster --example two_hosts`
//! Must never need a server: with `Kind::of` and a URL's servers it is ZooKeeper or etcd instead.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use selvedge_cluster::handle::{Cluster, Kind};
use selvedge_cluster::identity::Identity;
use selvedge_cluster::key::HostInfo;
use selvedge_cluster::names::Others;
use selvedge_cluster::recall::Remembered;
use selvedge_cluster::store::memory::Memory;
use selvedge_registry::record::Record;

type Failure = Box<dyn std::error::Error>;

/// The two are not asked for names.
struct NoNames;

impl Others for NoNames {
    fn put(&mut self, _: Record) {}

    fn remove(&mut self, _: &str) {}
}

fn host(name: &str, registry: &Memory) -> Result<Cluster, Failure> {
    let identity = Identity {
        host: name.to_owned(),
        instance: name.to_owned(),
        info: HostInfo {
            address: IpAddr::from(Ipv4Addr::LOCALHOST),
            port: 6785,
            version: "1".to_owned(),
            datapath: "auto".to_owned(),
            policy: "open".to_owned(),
            heeds_stops: false,
        },
        pool: "10.32.0.0/12".parse()?,
        block_size: 24,
        vips: None,
        by_tenant: false,
        free_after: Duration::from_secs(3600),
        alone: false,
    };
    let no_addresses = Box::new(|_, _: selvedge_cluster::handle::Reserve<'_>| Ok(()));
    let kind = Kind::Local(registry.clone());
    Ok(Cluster::start(kind, identity, Box::new(NoNames), no_addresses, Remembered::default())?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let registry = Memory::default();
    let (a, b) = (host("a", &registry)?, host("b", &registry)?);
    println!("a has {}, b has {}", a.claim_block(None).await?, b.claim_block(None).await?);
    let mut views = b.views();
    let view = views.wait_for(|view| view.peers.iter().any(|peer| !peer.blocks.is_empty())).await?;
    println!("b sees {:?}", view.peers.iter().map(|peer| (&peer.name, &peer.blocks)).collect::<Vec<_>>());
    Ok(())
}
