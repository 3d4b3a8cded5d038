//! One wire: made, repaired, released.
//!
//! Reads what exists and sends what is missing; a newly made pair needs no reading. The order is the guarantee: the
//! sign comes last, and the mark on the host's end after the sign. Must never leave a pair that it made itself when a
//! step failed.

mod container_end;
mod host_end;
mod ipv6;
pub(crate) mod spec;
pub(crate) mod wiring;

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use tokio::time::{Instant, sleep};

use crate::error::{Error, Failure};
use crate::identity::{self, CONTAINER_INTERFACE, host_interface};
use crate::netlink::{Change, Netlink};
use crate::netns::{self, Inside, Namespace};
use crate::query::{self, Link};
use crate::wire::container_end::ContainerEnd;
use crate::wire::host_end::HostEnd;
use crate::wire::ipv6::End6;
use crate::wire::spec::WireSpec;
use crate::wire::wiring::Wiring;
use crate::{removal, sysctl};

/// A dying namespace may take its link away, or another process may make one, while we look.
const ATTEMPTS: usize = 4;
/// linkwatch needs microseconds; only a host in deep trouble needs more than this.
const UP_LIMIT: Duration = Duration::from_secs(2);
const UP_LIMIT_MILLISECONDS: u64 = 2000;
/// How often to look without a pause: the link is almost always up by then, and the timer cannot sleep less than 1 ms.
const UP_QUICK_LOOKS: usize = 8;

/// How many wires are made at the same time. The kernel handles one request at a time anyway (rtnl lock), so more would
/// only make the first of many starts as late as the last.
pub(crate) const TURNS: usize = 3;

/// Makes or repairs a wire: everything but the sign.
pub(crate) async fn connect(wiring: &Wiring, spec: &WireSpec) -> Result<(), Error> {
    // The semaphore is never closed; and running without a permit would only be slower.
    let _turn = wiring.turns.acquire().await.ok();
    let namespace = wiring.namespace(spec)?;
    let mut fresh = false;
    let outcome = wiring.make(spec, &namespace, &mut fresh).await;
    tracing::debug!(fresh, made = outcome.is_ok(), "looked after its wire");
    let gone = !is_current(&namespace, spec);
    if gone || (fresh && outcome.is_err()) {
        wiring.clean_up(spec).await;
    }
    if gone { Err(gone_error(spec)) } else { outcome }
}

/// Gives the sign, then marks the host's end.
pub(crate) async fn release(wiring: &Wiring, spec: &WireSpec) -> Result<(), Error> {
    let namespace = wiring.namespace(spec)?;
    let outcome = wiring.give_sign(spec, &namespace).await;
    if is_current(&namespace, spec) {
        return outcome;
    }
    wiring.clean_up(spec).await;
    Err(gone_error(spec))
}

fn is_current(namespace: &Namespace, spec: &WireSpec) -> bool {
    netns::inode_of(spec.pid).is_ok_and(|inode| inode == namespace.inode)
}

fn gone_error(spec: &WireSpec) -> Error {
    Error::Gone { container: spec.container.clone(), pid: spec.pid }
}

/// The result of making the host's end.
enum HostLink {
    Fresh(Link),
    Existing(Link),
    /// The link was there and vanished, or the container has an interface of that name.
    Vanished,
}

impl Wiring {
    fn namespace(&self, spec: &WireSpec) -> Result<Namespace, Error> {
        let namespace = Namespace::of_process(spec.pid).map_err(|error| match error.kind() {
            // A process that ended and waits to be reaped still has a directory, but no namespaces.
            io::ErrorKind::NotFound => gone_error(spec),
            _ if error.raw_os_error() == Some(Errno::ESRCH as i32) => gone_error(spec),
            _ => Failure::new("open its network namespace", &error).of_container(&spec.container),
        })?;
        if namespace.inode == self.own_namespace {
            return Err(Error::HostNamespace { container: spec.container.clone(), pid: spec.pid });
        }
        Ok(namespace)
    }

    async fn make(&self, spec: &WireSpec, namespace: &Namespace, fresh: &mut bool) -> Result<(), Error> {
        let told = |failure: Failure| failure.of_container(&spec.container);
        for _ in 0..ATTEMPTS {
            let (link, is_fresh) = match self.create(spec, namespace).await.map_err(told)? {
                HostLink::Fresh(link) => (link, true),
                HostLink::Existing(link) => (link, false),
                HostLink::Vanished => continue,
            };
            *fresh |= is_fresh;
            self.refuse_foreign(spec, &link)?;
            let settings = container_end::settings(&self.settings);
            let inside = namespace.enter(settings, &self.changes).await.map_err(told)?;
            if is_fresh {
                return self.finish_fresh(spec, &link, &inside).await;
            }
            match self.other_end(&link, &inside).await.map_err(told)? {
                Some(other) => return self.repair(spec, &link, &inside, &other).await,
                // The container was restarted: this link leads to its former namespace, which is dying.
                None => removal::remove_one(&self.netlink, link.index).await.map_err(told)?,
            }
        }
        Err(Error::Occupied { container: spec.container.clone(), interface: CONTAINER_INTERFACE.to_owned() })
    }

    /// One message makes both ends, the container's in its own namespace: making it here and moving it would cost 19
    /// ms.
    async fn create(&self, spec: &WireSpec, namespace: &Namespace) -> Result<HostLink, Failure> {
        let name = host_interface(&spec.container);
        // Both are created down (the kernel answers ENOTCONN to an end that should be up before it has a peer), and go
        // up once the settings are right.
        let inner = LinkUnspec::new_with_name(CONTAINER_INTERFACE)
            .address(identity::container_mac(spec.address).to_vec())
            .mtu(self.mtu)
            .setns_by_fd(namespace.descriptor());
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name.clone())
            .link_group(self.settings.group)
            .address(identity::host_mac(self.settings.gateway).to_vec())
            .mtu(self.mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(inner.build())));
        let change = Change::create("make the veth pair", RouteNetlinkMessage::NewLink(pair.build()));
        let (made, link) = tokio::join!(
            self.netlink.apply_unless(change, Errno::EEXIST),
            query::link_by_name(&self.netlink, &name),
        );
        Ok(match (made?, link?) {
            (_, None) => HostLink::Vanished,
            (true, Some(link)) => HostLink::Fresh(link),
            (false, Some(link)) => HostLink::Existing(link),
        })
    }

    fn refuse_foreign(&self, spec: &WireSpec, link: &Link) -> Result<(), Error> {
        let group = self.settings.group;
        if link.group == group || link.group == identity::doomed(group) {
            return Ok(());
        }
        Err(Error::Occupied { container: spec.container.clone(), interface: link.name.clone() })
    }

    /// The container's end, if it is the other end of this link. Its index proves that: the two were created together,
    /// and an index is never reused.
    async fn other_end(&self, link: &Link, inside: &Inside) -> Result<Option<Link>, Failure> {
        if link.group == identity::doomed(self.settings.group) {
            return Ok(None);
        }
        let Some(index) = inside.interface else { return Ok(None) };
        let found = query::link_by_index(&inside.netlink, index).await?;
        Ok(found.filter(|other| other.peer == Some(link.index) && link.peer == Some(other.index)))
    }

    async fn finish_fresh(&self, spec: &WireSpec, link: &Link, inside: &Inside) -> Result<(), Error> {
        let Some(index) = inside.interface else { return Err(gone_error(spec)) };
        let host =
            HostEnd { link: link.clone(), routes: Vec::new(), neighbours: Vec::new(), six: End6::default() };
        let container = ContainerEnd::fresh(index, spec.address, link);
        self.complete_ends(spec, &host, &container, &inside.netlink).await
    }

    async fn repair(&self, spec: &WireSpec, link: &Link, inside: &Inside, other: &Link) -> Result<(), Error> {
        let (host, container) = tokio::try_join!(
            HostEnd::look(&self.netlink, link, &self.settings),
            ContainerEnd::look(&inside.netlink, other, &self.settings),
        )
        .map_err(|failure| failure.of_container(&spec.container))?;
        self.complete_ends(spec, &host, &container, &inside.netlink).await
    }

    async fn complete_ends(
        &self,
        spec: &WireSpec,
        host: &HostEnd,
        container: &ContainerEnd,
        inside: &Netlink,
    ) -> Result<(), Error> {
        let told = |failure: Failure| failure.of_container(&spec.container);
        self.refuse_routed(spec, host.link.index).await?;
        let written = sysctl::ensure(&host_end::settings(&self.settings, &host.link.name)).map_err(told)?;
        self.netlink.count(written);
        tokio::try_join!(
            self.netlink.apply(host.missing(self, spec)),
            inside.apply(container.missing(self, spec)),
        )
        .map_err(told)?;
        self.until_up(spec, host.link.index, container.link.index, inside).await
    }

    /// The kernel's routes are the authority on who has an address: it is never taken from another wire. Any other
    /// route to it is corrected.
    async fn refuse_routed(&self, spec: &WireSpec, own: u32) -> Result<(), Error> {
        let told = |failure: Failure| failure.of_container(&spec.container);
        let hops = query::hops(&self.netlink, &[spec.address.into()]).await.map_err(told)?;
        let on_a_link = |hop: &query::Hop| !hop.local && hop.gateway.is_none() && hop.interface != own;
        let Some(hop) = hops.into_iter().flatten().find(on_a_link) else { return Ok(()) };
        let link = query::link_by_index(&self.netlink, hop.interface).await.map_err(told)?;
        let is_wire =
            |link: &Link| identity::container_of(&link.name).is_some() && !identity::is_doomed(link.group);
        match link.filter(is_wire) {
            Some(link) => Err(Error::Routed { container: spec.container.clone(), interface: link.name }),
            None => Ok(()),
        }
    }

    /// Acknowledged does not mean usable: until linkwatch has run, a device has no queue and drops what is sent (up to
    /// 60 % of first packets then took 1.02 s). Checks both ends, since each is activated by itself.
    async fn until_up(
        &self,
        spec: &WireSpec,
        host: u32,
        container: u32,
        inside: &Netlink,
    ) -> Result<(), Error> {
        let begin = Instant::now();
        let mut looks = 0;
        while begin.elapsed() < UP_LIMIT {
            let ends = tokio::try_join!(
                query::link_by_index(&self.netlink, host),
                query::link_by_index(inside, container)
            );
            let (host, container) = ends.map_err(|failure| failure.of_container(&spec.container))?;
            let (Some(host), Some(container)) = (host, container) else { return Err(gone_error(spec)) };
            if host.up && container.up {
                return Ok(());
            }
            looks += 1;
            if looks >= UP_QUICK_LOOKS {
                sleep(Duration::from_millis(1)).await;
            }
        }
        Err(Error::NotUp { container: spec.container.clone(), milliseconds: UP_LIMIT_MILLISECONDS })
    }

    async fn give_sign(&self, spec: &WireSpec, namespace: &Namespace) -> Result<(), Error> {
        let told = |failure: Failure| failure.of_container(&spec.container);
        let inside = namespace.enter(Vec::new(), &self.changes).await.map_err(told)?;
        let name = host_interface(&spec.container);
        let link = query::link_by_name(&self.netlink, &name).await.map_err(told)?;
        let not_connected = || Error::NotConnected { container: spec.container.clone() };
        let link = link.filter(|link| link.group == self.settings.group).ok_or_else(not_connected)?;
        let other = self.other_end(&link, &inside).await.map_err(told)?.ok_or_else(not_connected)?;
        container_end::give_sign(&inside.netlink, self, other.index, spec.address).await.map_err(told)?;
        if !is_current(namespace, spec) {
            return Err(gone_error(spec));
        }
        let mark = identity::complete_mark(namespace.inode);
        if link.alias.as_deref() == Some(&mark) {
            return Ok(());
        }
        let message = LinkUnspec::new_with_index(link.index).alias(mark).build();
        let change = Change::alter("mark the wire as complete", RouteNetlinkMessage::SetLink(message));
        self.netlink.apply(vec![change]).await.map_err(told)
    }

    /// After a failure: the kernel would remove the pair with the namespace, but not at once.
    async fn clean_up(&self, spec: &WireSpec) {
        let name = host_interface(&spec.container);
        let Ok(Some(link)) = query::link_by_name(&self.netlink, &name).await else { return };
        if self.refuse_foreign(spec, &link).is_err() {
            return;
        }
        if let Err(failure) = removal::remove_one(&self.netlink, link.index).await {
            tracing::warn!(container = spec.short_id(), "after a failed connect: {failure}");
        }
    }
}
