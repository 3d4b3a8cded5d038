//! One wire: made, finished, replaced, marked, taken out.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteProtocol, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use crate::dump::{self, Link};
use crate::error::{Error, errno};
use crate::network::Network;
use crate::{ROUTE_PROTOCOL, Wire, WireSpec, mac, netns, sysctl};

/// Host interfaces begin so; the first 12 digits of the container's id follow.
pub(crate) const PREFIX: &str = "sv";
/// The container's interface.
const INSIDE: &str = "selvedge0";

type Result<T> = std::result::Result<T, Error>;

fn host_name(container: &str) -> String {
    format!("{PREFIX}{}", container.get(..12).unwrap_or(container))
}

fn gone(spec: &WireSpec) -> Error {
    Error::Gone { container: spec.container.get(..12).unwrap_or(&spec.container).to_owned() }
}

/// Both ends of a wire that is being worked on.
struct Ends<'a> {
    network: &'a Network,
    spec: &'a WireSpec,
    name: String,
    netns: File,
    inside: Handle,
}

/// Keeps the interface out of dumps while it is worked on: half of a wire would look like a stray one.
struct Busy<'a>(&'a Network, &'a str);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.set_busy(self.1, false);
    }
}

impl<'a> Ends<'a> {
    fn open(network: &'a Network, spec: &'a WireSpec) -> Result<Self> {
        let path = format!("/proc/{}/ns/net", spec.pid);
        let netns = match File::open(&path) {
            Err(error) if is_no_process(&error) => return Err(gone(spec)),
            result => result.map_err(Error::system(format!("cannot open {path}")))?,
        };
        let entered = netns::socket(&netns).and_then(netns::connection);
        let inside = entered.map_err(Error::system("cannot enter the container's network namespace"))?;
        Ok(Self { network, spec, name: host_name(&spec.container), netns, inside })
    }

    fn told(&self, step: &'static str) -> impl FnOnce(rtnetlink::Error) -> Error + use<> {
        Error::kernel(step, &self.name)
    }

    /// The pair, in one message: the far end is born in the container's namespace. Moving it there afterwards
    /// would wait for the kernel's readers, some 19 ms.
    async fn make(&self) -> std::result::Result<(), rtnetlink::Error> {
        let peer = LinkUnspec::new_with_name(INSIDE)
            .address(mac::of(self.spec.address).to_vec())
            .setns_by_fd(self.netns.as_raw_fd())
            .mtu(self.network.mtu)
            .build();
        // The far end cannot be up from birth: it does not know its peer yet (veth_open says ENOTCONN).
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(self.name.as_str())
            .address(mac::HOST.to_vec())
            .mtu(self.network.mtu)
            .link_group(self.network.group(false))
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up()
            .build();
        self.network.handle.link().add(pair).execute().await?;
        self.network.changed();
        Ok(())
    }

    async fn outer(&self) -> Result<Option<Link>> {
        dump::link(&self.network.handle, &self.name).await.map_err(self.told("look for the interface"))
    }

    async fn inner(&self) -> Result<Option<Link>> {
        dump::link(&self.inside, INSIDE).await.map_err(self.told("look for the container's interface"))
    }

    /// Both ends, made if they are not there. What is left of an earlier life of the container goes first.
    async fn pair(&self) -> Result<(Link, Link, bool)> {
        for _ in 0..3 {
            let made = match self.make().await {
                Err(error) if errno(&error) == Some(nix::libc::EEXIST) => false,
                result => result.map(|()| true).map_err(self.told("make"))?,
            };
            match (self.outer().await?, self.inner().await?) {
                (Some(outer), Some(inner)) if inner.peer == outer.index && outer.peer == inner.index => {
                    return Ok((outer, inner, made));
                }
                (outer, inner) => self.clear(outer, inner).await?,
            }
        }
        Err(Error::NotUp(self.name.clone()))
    }

    async fn clear(&self, outer: Option<Link>, inner: Option<Link>) -> Result<()> {
        for (handle, link) in [(&self.network.handle, outer), (&self.inside, inner)] {
            let Some(link) = link else { continue };
            match handle.link().del(link.index).execute().await {
                Err(error) if errno(&error) == Some(nix::libc::ENODEV) => {}
                result => result.map_err(self.told("replace"))?,
            }
            self.network.changed();
        }
        Ok(())
    }

    /// The container's side: address, the gateway as a neighbour that need not be asked for, routes to it.
    async fn inside(&self, link: &Link) -> Result<()> {
        let address = self.spec.address;
        let settings = &self.network.settings;
        let request = self.inside.address().add(link.index, IpAddr::V4(address), 32);
        self.network.added(request.execute().await).map_err(self.told("set the address"))?;
        self.up(&self.inside, link).await?;
        let mut hosts = vec![settings.gateway];
        hosts.extend(Some(settings.dns).filter(|dns| *dns != settings.gateway));
        for host in hosts {
            self.neighbour(&self.inside, link, (host, mac::HOST)).await?;
            let route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(host, 32)
                .output_interface(link.index)
                .scope(RouteScope::Link)
                .pref_source(address)
                .build();
            let added = self.inside.route().add(route).execute().await;
            self.network.added(added).map_err(self.told("set the container's route"))?;
        }
        Ok(())
    }

    /// The host's side: the container as a neighbour that need not be asked for, the route to it.
    async fn outside(&self, link: &Link) -> Result<()> {
        self.settle_sysctls()?;
        self.up(&self.network.handle, link).await?;
        self.neighbour(&self.network.handle, link, (self.spec.address, mac::of(self.spec.address))).await?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.spec.address, 32)
            .output_interface(link.index)
            .scope(RouteScope::Link)
            .pref_source(self.network.settings.gateway)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        // Another interface may still have the address's route: one that goes away just now.
        let routes = self.network.handle.route();
        match routes.add(route.clone()).execute().await {
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => {}
            result => {
                result.map_err(self.told("set the route"))?;
                self.network.changed();
                return Ok(());
            }
        }
        if self.leads_here(link).await? {
            return Ok(());
        }
        routes.add(route).replace().execute().await.map_err(self.told("replace the route"))?;
        self.network.changed();
        Ok(())
    }

    async fn leads_here(&self, link: &Link) -> Result<bool> {
        let routes = dump::routes(&self.network.handle).await.map_err(self.told("read the routes"))?;
        let wanted = (Some(link.index), Some(self.spec.address));
        Ok(routes
            .iter()
            .any(|route| route.header.destination_prefix_length == 32 && dump::way(route) == wanted))
    }

    // A strict reverse path filter: the container cannot send with another's address. No IPv6 of its own
    // accord on the host's end.
    fn settle_sysctls(&self) -> Result<()> {
        let name = &self.name;
        let path = format!("net/ipv4/conf/{name}/rp_filter");
        if sysctl::set(&path, "1").map_err(Error::system(format!("cannot set {path}")))? {
            self.network.changed();
        }
        // A kernel without IPv6 has no such setting.
        if matches!(sysctl::set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1"), Ok(true)) {
            self.network.changed();
        }
        Ok(())
    }

    async fn up(&self, handle: &Handle, link: &Link) -> Result<()> {
        if link.up {
            return Ok(());
        }
        let up = LinkUnspec::new_with_index(link.index).up().build();
        handle.link().set(up).execute().await.map_err(self.told("set up"))
    }

    async fn neighbour(&self, handle: &Handle, link: &Link, whom: (Ipv4Addr, [u8; 6])) -> Result<()> {
        let (address, mac) = whom;
        // NUD_PERMANENT is the request's default state.
        let request = handle.neighbours().add(link.index, IpAddr::V4(address)).link_layer_address(&mac);
        self.network.added(request.execute().await).map_err(self.told("set the neighbour"))
    }

    /// Packets that come before the host's end is up are lost, and their sender waits a second to try again.
    async fn until_up(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            match self.outer().await? {
                Some(link) if link.up => return Ok(()),
                Some(_) => tokio::time::sleep(Duration::from_micros(200)).await,
                None => return Err(gone(self.spec)),
            }
        }
        Err(Error::NotUp(self.name.clone()))
    }
}

fn is_no_process(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// An error while the container's process has ended is that it has ended.
fn or_gone(spec: &WireSpec, error: Error) -> Error {
    let ended = !std::path::Path::new(&format!("/proc/{}/ns/net", spec.pid)).exists()
        || std::fs::read_link(format!("/proc/{}/ns/net", spec.pid)).is_err_and(|error| is_no_process(&error));
    if ended { gone(spec) } else { error }
}

/// Makes a wire, or finishes or replaces what is there of it.
pub(crate) async fn connect(network: &Network, spec: &WireSpec) -> Result<bool> {
    let name = host_name(&spec.container);
    network.set_busy(&name, true);
    let _busy = Busy(network, &name);
    let result = async {
        let ends = Ends::open(network, spec)?;
        let (outer, inner, made) = ends.pair().await?;
        ends.inside(&inner).await?;
        ends.outside(&outer).await?;
        ends.until_up().await?;
        Ok(made)
    };
    match result.await {
        Ok(made) => Ok(made),
        Err(error) => {
            // Nothing half done stays: the route with the wrong address would draw packets away.
            if let Ok(Some(link)) = dump::link(&network.handle, &name).await {
                let _ = network.handle.link().del(link.index).execute().await;
            }
            Err(or_gone(spec, error))
        }
    }
}

/// Gives the sign and marks the wire as complete.
pub(crate) async fn release(network: &Network, spec: &WireSpec) -> Result<()> {
    let result = async {
        let ends = Ends::open(network, spec)?;
        let Some(inner) = ends.inner().await? else { return Err(gone(spec)) };
        let Some(outer) = ends.outer().await? else { return Err(gone(spec)) };
        let sign = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network.settings.pool.network(), network.settings.pool.prefix_len())
            .output_interface(inner.index)
            .gateway(network.settings.gateway)
            .pref_source(spec.address)
            .protocol(RouteProtocol::Other(ROUTE_PROTOCOL))
            .build();
        let added = ends.inside.route().add(sign).execute().await;
        network.added(added).map_err(ends.told("set the pool's route"))?;
        if outer.group == network.group(true) {
            return Ok(());
        }
        let marked = set_group(&network.handle, outer.index, network.group(true)).await;
        network.changed();
        marked.map_err(ends.told("mark"))
    };
    result.await.map_err(|error| or_gone(spec, error))
}

async fn set_group(handle: &Handle, index: u32, group: u32) -> std::result::Result<(), rtnetlink::Error> {
    handle.link().set(LinkUnspec::new_with_index(index).link_group(group).build()).execute().await
}

/// Takes wires out: all in one deletion by group, since each deletion waits for the kernel's readers.
pub(crate) async fn disconnect(network: &Network, wires: &[Wire]) -> Result<()> {
    let told = || Error::kernel("take out", "wires");
    for wire in wires {
        match set_group(&network.handle, wire.index, network.doomed_group()).await {
            Err(error) if errno(&error) == Some(nix::libc::ENODEV) => {}
            result => result.map_err(told())?,
        }
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(network.doomed_group()));
    let mut request = network.handle.link().del(0);
    *request.message_mut() = message;
    match request.execute().await {
        // The kernel says so when the group is empty.
        Err(error) if matches!(errno(&error), Some(nix::libc::ENODEV | nix::libc::EINVAL)) => Ok(()),
        result => {
            network.changed();
            result.map_err(told())
        }
    }
}
