//! A limited resource of which one address may have at most a quarter. It must never fail to take a share back: that
//! happens when the share is dropped, even by a panic.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

/// The divisor of the whole that gives one address's limit: a quarter.
const PARTS: usize = 4;

/// The resource.
pub(crate) struct Shares {
    limit: usize,
    taken: Cell<usize>,
    by_address: RefCell<HashMap<IpAddr, usize>>,
}

impl Shares {
    pub(crate) fn new(limit: usize) -> Rc<Self> {
        Rc::new(Self { limit, taken: Cell::new(0), by_address: RefCell::default() })
    }

    /// A share, unless all are taken, or this address has too many.
    pub(crate) fn take(self: &Rc<Self>, address: IpAddr) -> Option<Share> {
        let mut by_address = self.by_address.borrow_mut();
        let own = by_address.get(&address).copied().unwrap_or(0);
        if self.taken.get() >= self.limit || own >= self.limit.div_ceil(PARTS) {
            return None;
        }
        by_address.insert(address, own + 1);
        self.taken.set(self.taken.get() + 1);
        Some(Share { shares: self.clone(), address })
    }
}

/// A share; dropping it frees it.
pub(crate) struct Share {
    shares: Rc<Shares>,
    address: IpAddr,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.taken.set(self.shares.taken.get().saturating_sub(1));
        let mut by_address = self.shares.by_address.borrow_mut();
        match by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_more_than_a_quarter() {
        let shares = Shares::new(8);
        let address = |last: u8| IpAddr::from([10, 32, 0, last]);
        let first: Vec<Share> = (0..2).filter_map(|_| shares.take(address(1))).collect();
        assert!(first.len() == 2 && shares.take(address(1)).is_none());
        let others: Vec<Share> = (2..9).flat_map(|last| shares.take(address(last))).collect();
        assert_eq!(others.len(), 6);
        drop(first);
        assert!(shares.take(address(1)).is_some());
        drop(others);
        assert_eq!((shares.taken.get(), shares.by_address.borrow().len()), (0, 0));
    }
}
