//! stub
use std::net::{IpAddr, Ipv4Addr};
use ipnet::Ipv4Net;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datapath { Auto, Direct, Vxlan }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer { pub name: String, pub underlay: IpAddr, pub datapath: Datapath, pub destinations: Vec<Ipv4Net> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fabric { pub underlay: IpAddr, pub own_blocks: Vec<Ipv4Net>, pub host_address: Option<Ipv4Addr>, pub peers: Vec<Peer>, pub vxlan_port: u16, pub vxlan_id: u32 }
impl crate::Network {
    pub async fn weave(&self, _f: &Fabric) -> Result<u64, crate::Error> { Ok(0) }
    pub async fn plan(&self, _f: &Fabric) -> Result<Vec<String>, crate::Error> { Ok(vec![]) }
    pub async fn own_blocks(&self) -> Result<Vec<Ipv4Net>, crate::Error> { Ok(vec![]) }
    pub async fn default_underlay(&self) -> Result<Option<IpAddr>, crate::Error> { Ok(None) }
}
