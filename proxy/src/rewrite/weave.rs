//! `WEAVE_CIDR`, for those who come from Weave Net: what of it has a meaning here. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::labels::Wishes;

/// The longest prefix with room for two containers.
const SMALLEST: u8 = 30;
/// The variable.
pub(crate) const VARIABLE: &str = "WEAVE_CIDR";

/// Whether the container is to have no wire.
pub(crate) fn is_none(value: Option<&str>) -> bool {
    value.map(str::trim) == Some("none")
}

/// Takes in what it asks for, where no label of ours says something else: an address or any one of a subnet, and the subnet
/// as the tenant. For Weave a subnet was what kept containers apart.
///
/// # Errors
/// What it asks for and cannot be had, for the client.
pub(crate) fn take_in(wishes: &mut Wishes, value: &str) -> Result<(), String> {
    let items: Vec<&str> = value.split_whitespace().filter(|item| *item != "net:default").collect();
    let item = match items[..] {
        [] => return Ok(()),
        [item] => item,
        _ => return Err("a container has one address here".to_owned()),
    };
    if let Some(text) = item.strip_prefix("net:") {
        let subnet: Option<Ipv4Net> = text.parse().ok().filter(|net: &Ipv4Net| net.trunc() == *net);
        let subnet = subnet.ok_or_else(|| format!("{item:?} is not like net:10.40.0.0/24"))?;
        if subnet.prefix_len() > SMALLEST {
            return Err(format!("a subnet must be a /{SMALLEST} or larger"));
        }
        wishes.subnet = Some(subnet);
        wishes.tenant.get_or_insert_with(|| tenant(subnet));
        return Ok(());
    }
    let text = item.strip_prefix("ip:").unwrap_or(item);
    let (address, subnet) = read(text).ok_or_else(|| format!("{item:?} is not like ip:10.40.0.7/24"))?;
    wishes.by_weave = wishes.address.is_none();
    wishes.address.get_or_insert(address);
    wishes.tenant.get_or_insert_with(|| tenant(subnet));
    Ok(())
}

/// The tenant that all of a subnet belong to.
fn tenant(subnet: Ipv4Net) -> String {
    format!("net-{}-{}", subnet.network(), subnet.prefix_len())
}

fn read(text: &str) -> Option<(Ipv4Addr, Ipv4Net)> {
    let subnet: Ipv4Net = text.parse().ok()?;
    Some((subnet.addr(), subnet.trunc()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_and_its_subnet_keeps_containers_apart() {
        for value in ["ip:10.40.0.7/24", " 10.40.0.7/24 ", "net:default ip:10.40.0.7/24"] {
            let mut wishes = Wishes::default();
            take_in(&mut wishes, value).unwrap();
            assert_eq!(wishes.address, Some(Ipv4Addr::new(10, 40, 0, 7)), "{value}");
            assert_eq!(wishes.tenant.as_deref(), Some("net-10.40.0.0-24"));
        }
        let mut wishes = Wishes::default();
        take_in(&mut wishes, "net:10.40.0.0/24").unwrap();
        assert_eq!(wishes.subnet, Some("10.40.0.0/24".parse().unwrap()));
        assert_eq!((wishes.address, wishes.tenant.as_deref()), (None, Some("net-10.40.0.0-24")));
        let mut wishes = Wishes { tenant: Some("shop".into()), ..Wishes::default() };
        take_in(&mut wishes, "ip:10.40.0.7/24").unwrap();
        assert_eq!(wishes.tenant.as_deref(), Some("shop"), "a label of ours counts more");
    }

    #[test]
    fn what_has_no_meaning_here_is_refused_and_the_default_is_the_default() {
        for value in ["", "  ", "net:default"] {
            let mut wishes = Wishes::default();
            take_in(&mut wishes, value).unwrap();
            assert_eq!(wishes, Wishes::default());
        }
        for value in [
            "net:10.40.0.0/31",
            "net:10.40.0.7/24",
            "net:x",
            "ip:10.40.0.7",
            "ip:10.40.0.7/33",
            "10.40.0.7/24 10.41.0.7/24",
            "x",
        ] {
            assert!(take_in(&mut Wishes::default(), value).is_err(), "{value}");
        }
    }
}
