//! The virtual addresses that the registry knows, and the choice of an address for a new name.
//!
//! Pure. An address belongs to its name for good, even while no container stands behind it, because clients keep
//! addresses. Only when no free address is left does an unused one go to another name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use selvedge_registry::name::fnv1a;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Vips {
    names: BTreeMap<Ipv4Addr, String>,
    by_name: Arc<HashMap<String, Ipv4Addr>>,
    /// Addresses that an emptied registry does not know any more.
    held_over: BTreeSet<Ipv4Addr>,
}

/// How a name gets its address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It already has one.
    Known,
    /// By creating this address.
    Take(Ipv4Addr),
    /// By taking this address over from this other, unused name.
    TakeOver(Ipv4Addr, String),
    /// It gets none: every address is in use.
    None,
}

impl Vips {
    /// Assigns the address to the name.
    pub(crate) fn put(&mut self, address: Ipv4Addr, name: &str) {
        self.held_over.remove(&address);
        let old = self.names.insert(address, name.to_owned());
        old.filter(|old| old != name).iter().for_each(|old| self.choose(old));
        if self.by_name.get(name).is_none_or(|known| address < *known) {
            Arc::make_mut(&mut self.by_name).insert(name.to_owned(), address);
        }
    }

    /// Frees the address.
    pub(crate) fn remove(&mut self, address: Ipv4Addr) {
        self.held_over.remove(&address);
        if let Some(old) = self.names.remove(&address) {
            self.choose(&old);
        }
    }

    /// An address was taken from the name. Of two addresses of one name the lower one counts, on every host: the result
    /// must not depend on the order of the news.
    fn choose(&mut self, name: &str) {
        let first = self.names.iter().find(|(_, other)| *other == name).map(|(address, _)| *address);
        let by_name = Arc::make_mut(&mut self.by_name);
        match first {
            Some(address) => _ = by_name.insert(name.to_owned(), address),
            None => _ = by_name.remove(name),
        }
    }

    /// Keeps what was known before the registry was emptied, until a host writes something else.
    pub(crate) fn hold_over(&mut self, before: &Self) {
        for (address, name) in &before.names {
            if !self.names.contains_key(address) && !self.by_name.contains_key(name) {
                self.put(*address, name);
                self.held_over.insert(*address);
            }
        }
    }

    /// The address and the name of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, &str)> {
        self.names.iter().map(|(address, name)| (*address, name.as_str()))
    }

    /// The addresses by their names.
    pub(crate) fn by_name(&self) -> Arc<HashMap<String, Ipv4Addr>> {
        Arc::clone(&self.by_name)
    }

    /// How a name gets its address. All hosts search the range from the same place, so that they find the same one.
    pub(crate) fn way(
        &self,
        name: &str,
        range: Ipv4Net,
        is_used: &dyn Fn(&str) -> bool,
        is_free: &dyn Fn(Ipv4Addr) -> bool,
    ) -> Way {
        match self.by_name.get(name) {
            Some(address) if self.held_over.contains(address) => return Way::Take(*address),
            Some(_) => return Way::Known,
            None => {}
        }
        let first =
            places(name, range).find(|address| !self.names.contains_key(address) && is_free(*address));
        if let Some(address) = first {
            return Way::Take(address);
        }
        let mut idle = places(name, range).filter_map(|address| Some((address, self.names.get(&address)?)));
        let idle = idle.find(|(_, other)| !is_used(other));
        idle.map_or(Way::None, |(address, other)| Way::TakeOver(address, other.clone()))
    }
}

/// The addresses of the range, from a starting point that depends on the name; without its first and last, which some
/// software takes for the network's own.
fn places(name: &str, range: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let size = 1_u64 << (32 - u32::from(range.prefix_len()));
    let count = size.saturating_sub(2);
    let first = u64::from(fnv1a(name.as_bytes())).checked_rem(count).unwrap_or(0);
    let base = u64::from(range.network().to_bits()) + 1;
    let nth = move |index: u64| u32::try_from(base + (first + index) % count).ok().map(Ipv4Addr::from_bits);
    (0..count).filter_map(nth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(vips: &Vips, name: &str, used: &[&str]) -> Way {
        let range: Ipv4Net = "10.47.0.0/29".parse().unwrap();
        vips.way(name, range, &|name| used.contains(&name), &|_| true)
    }

    #[test]
    fn a_name_keeps_its_address_and_all_hosts_choose_the_same() {
        let (mut vips, mut others) = (Vips::default(), Vips::default());
        let names = ["a", "b", "c", "d", "e", "f"];
        for name in names {
            let Way::Take(address) = way(&vips, name, &[]) else { panic!("there is room for {name}") };
            assert_eq!(way(&others, name, &[]), Way::Take(address));
            vips.put(address, name);
            others.put(address, name);
            assert_eq!(way(&vips, name, &[]), Way::Known);
        }
        assert_eq!(vips.by_name().len(), 6);
        assert_eq!(way(&vips, "g", &names), Way::None);
        let Way::TakeOver(address, old) = way(&vips, "g", &["a", "b", "d", "e", "f"]) else { panic!() };
        assert_eq!(old, "c");
        vips.put(address, "g");
        assert_eq!((vips.by_name().get("g"), vips.by_name().get("c")), (Some(&address), None));
    }

    #[test]
    fn an_emptied_registry_is_told_the_same_again() {
        let mut before = Vips::default();
        before.put([10, 47, 0, 3].into(), "db");
        before.put([10, 47, 0, 4].into(), "web");
        let mut vips = Vips::default();
        vips.put([10, 47, 0, 4].into(), "other");
        vips.hold_over(&before);
        assert_eq!(way(&vips, "db", &[]), Way::Take([10, 47, 0, 3].into()));
        assert_eq!(vips.by_name().get("db"), Some(&[10, 47, 0, 3].into()));
        vips.put([10, 47, 0, 3].into(), "db");
        assert_eq!(way(&vips, "db", &[]), Way::Known);
        assert!(!vips.by_name().contains_key("web"), "its address is another one's now");
    }

    #[test]
    fn of_two_addresses_the_lower_one_counts() {
        let mut vips = Vips::default();
        vips.put([10, 47, 0, 5].into(), "db");
        vips.put([10, 47, 0, 3].into(), "db");
        assert_eq!(vips.by_name().get("db"), Some(&[10, 47, 0, 3].into()));
        vips.remove([10, 47, 0, 3].into());
        assert_eq!(vips.by_name().get("db"), Some(&[10, 47, 0, 5].into()));
    }

    #[test]
    fn every_address_but_the_first_and_the_last_has_its_turn_once() {
        let range: Ipv4Net = "10.47.0.0/24".parse().unwrap();
        let all: BTreeSet<Ipv4Addr> = places("x", range).collect();
        assert_eq!((places("x", range).count(), all.len()), (254, 254));
        assert_eq!(all.first(), Some(&[10, 47, 0, 1].into()));
        assert_eq!(all.last(), Some(&[10, 47, 0, 254].into()));
    }
}
