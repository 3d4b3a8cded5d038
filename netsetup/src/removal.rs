//! Removes links, many in one request.
//!
//! Deleting a link makes the kernel wait for all processors (14 to 20 ms), but only once per request: links to be
//! deleted get a group of their own, and RTM_DELLINK with a group deletes them all. Must never run in the path of an
//! API call, and never delete a link other than the one that was meant.

use nix::errno::Errno;
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkMessage;

use crate::error::Failure;
use crate::identity;
use crate::netlink::{Change, Netlink};
use crate::query;

const STEP: &str = "delete a wire";
/// The kernel holds the rtnl lock for a whole request, and every `connect` waits for it.
const AT_ONCE: usize = 32;

/// Deletes the links, given by index and name; one that is gone, or whose index now belongs to another link, is left
/// alone.
pub(crate) async fn remove(netlink: &Netlink, links: &[(u32, String)], group: u32) -> Result<(), Failure> {
    for some in links.chunks(AT_ONCE) {
        if let [(index, name)] = some {
            if is_still(netlink, *index, name).await? {
                remove_one(netlink, *index).await?;
            }
            continue;
        }
        let mut marked = false;
        for (index, name) in some {
            if is_still(netlink, *index, name).await? {
                let mark = LinkUnspec::new_with_index(*index).link_group(identity::doomed(group)).build();
                let change = Change::alter("mark a wire for deletion", RouteNetlinkMessage::SetLink(mark));
                marked |= netlink.apply_unless(change, Errno::ENODEV).await?;
            }
        }
        if marked {
            remove_group(netlink, identity::doomed(group)).await?;
        }
    }
    Ok(())
}

/// Deletes one link, which may be gone.
pub(crate) async fn remove_one(netlink: &Netlink, index: u32) -> Result<(), Failure> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let change = Change::alter(STEP, RouteNetlinkMessage::DelLink(message));
    netlink.apply_unless(change, Errno::ENODEV).await.map(drop)
}

async fn remove_group(netlink: &Netlink, group: u32) -> Result<(), Failure> {
    let message = LinkUnspec::new_with_index(0).link_group(group).build();
    let change = Change::alter(STEP, RouteNetlinkMessage::DelLink(message));
    // A namespace that died meanwhile took its links with it.
    netlink.apply_unless(change, Errno::ENODEV).await.map(drop)
}

async fn is_still(netlink: &Netlink, index: u32, name: &str) -> Result<bool, Failure> {
    Ok(query::link_by_index(netlink, index).await?.is_some_and(|link| link.name == name))
}
