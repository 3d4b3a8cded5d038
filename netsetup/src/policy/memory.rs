//! What the table remembers besides rules: refused calls, and the names of ended containers.
//!
//! It is kept in the kernel so that the next worker, also of another version, can show the same. Must never change a rule.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::error::Error;
use crate::nft;
use crate::policy::{Policy, Refusal, have, refusal, rules};

impl Policy {
    /// What was refused, with the number of packets that the kernel has counted in the last day. What is in no detail (of an
    /// earlier version, or of more ports than the kernel remembers) is there by its two ends.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn refused(&self) -> Result<HashMap<Refusal, u64>, Error> {
        let base = Arc::clone(&self.base);
        nft::blocking(move || have::refused(&base)).await
    }

    /// Writes down the last owners of addresses, for a day, so that later workers can name them. Names may be any text, and
    /// are cut.
    ///
    /// # Errors
    /// [`Error::Nft`]; nothing is written down then.
    pub async fn remember(&self, names: Vec<(Ipv4Addr, String)>) -> Result<(), Error> {
        let element =
            |(address, name): &(Ipv4Addr, String)| format!("{address} comment \"{}\"", rules::comment(name));
        let elements: Vec<String> = names.iter().map(element).collect();
        let text =
            format!("add element {} {} {{ {} }}\n", self.base.table, refusal::FORMER, elements.join(", "));
        if names.is_empty() { Ok(()) } else { self.note_down(text).await }
    }

    /// The last owners of addresses, as this worker or an earlier one wrote them down.
    ///
    /// # Errors
    /// [`Error::Nft`].
    pub async fn remembered(&self) -> Result<HashMap<IpAddr, String>, Error> {
        let base = Arc::clone(&self.base);
        nft::blocking(move || have::former(&base)).await
    }

    /// Deletes the counts and names of these addresses, which have other owners now.
    ///
    /// # Errors
    /// [`Error::Nft`]; nothing is deleted then.
    pub async fn forget(&self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let mut elements = BTreeSet::new();
        for refusal in self.refused().await?.keys() {
            if addresses.contains(&refusal.from) || addresses.contains(&refusal.to) {
                elements.extend(refusal::elements(refusal));
            }
        }
        let former = self.remembered().await?;
        let gone = addresses.iter().filter(|address| former.contains_key(address));
        elements.extend(gone.map(|address| (refusal::FORMER.to_owned(), address.to_string())));
        let delete = |(set, element): &(String, String)| {
            format!("delete element {} {set} {{ {element} }}\n", self.base.table)
        };
        let text: String = elements.iter().map(delete).collect();
        if text.is_empty() { Ok(()) } else { self.note_down(text).await }
    }

    /// A transaction that changes no rule.
    async fn note_down(&self, text: String) -> Result<(), Error> {
        let policy = self.clone();
        nft::to_the_end(async move {
            let mut kernel = policy.kernel.lock().await;
            let before = kernel.generation;
            kernel.generation = nft::blocking(move || nft::transact(&text, before)).await?;
            Ok(())
        })
        .await
    }
}
