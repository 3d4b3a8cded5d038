//! Our own claims, which wait for the registry for a while, and other hosts' claims in our blocks, which wait for us.

use std::net::Ipv4Addr;

use super::{Done, Member, Pending};
use crate::claim::{self, Asked, ClaimError};
use crate::command::{Command, Reserve};
use crate::key::{Claim, Key};
use crate::store::{Store, Writer};
use crate::view::Registry;

impl<S: Store + 'static> Member<S> {
    /// Starts a claim, or lets it wait for the registry for a while.
    pub(super) fn claim(&mut self, pending: Pending) {
        let Some((writer, _)) = self.link.as_ref().filter(|_| self.state == Registry::Connected) else {
            return self.waiting.push(pending);
        };
        let writer = writer.clone();
        let host = self.identity.host.clone();
        self.jobs.push(match pending.command {
            Command::ClaimBlock { subnet, reply } => {
                let candidates = claim::free_blocks(&self.identity, &self.world, subnet);
                let sizes = (subnet.unwrap_or(self.identity.pool), self.identity.block_size);
                Box::pin(async move {
                    Done::Block { result: claim::block(writer, &host, sizes, candidates).await, reply }
                })
            }
            Command::ClaimAddress { address, container, reply } => {
                let size = self.identity.block_size;
                let blocks = [size, claim::small_block_size(size)].map(|size| claim::block_of(address, size));
                let asked = Asked { address, container, reply };
                Box::pin(async move {
                    let result = claim::address(writer, host, blocks, &asked, pending.until).await;
                    Done::Address { asked, result }
                })
            }
            Command::Forget { host, reply } => self.forget(writer, host, reply),
            _ => return,
        });
    }

    /// Answers another host's claim in a block of ours: it is up to us to say whether the address is free.
    pub(super) fn heed(&mut self, address: Ipv4Addr) {
        let ours = self.own.blocks.iter().any(|block| block.contains(&address));
        let claim = self.world.claims.get(&address).filter(|claim| ours && claim.host != self.identity.host);
        let Some(claim) = claim else {
            let _ = (self.owner)(address, Reserve::Free);
            return;
        };
        let answer = claim::verdict(claim, (self.owner)(address, Reserve::For(&claim.host)).is_ok());
        let Some((writer, _)) = self.link.as_ref().filter(|_| answer != claim.answer) else { return };
        let (old, new) = (claim.text(), Claim { answer, ..claim.clone() }.text());
        let writer = writer.clone();
        self.jobs.push(Box::pin(async move {
            let _ = writer.replace(&Key::Address(address).to_string(), &old, &new).await;
            Done::Nothing
        }));
    }

    pub(super) fn heed_all(&mut self) {
        let claims: Vec<Ipv4Addr> = self.world.claims.keys().copied().collect();
        claims.into_iter().for_each(|address| self.heed(address));
    }
}

pub(super) fn refuse(command: Command, state: &Registry) {
    let error = ClaimError::Unreachable(match state {
        Registry::Away(why) | Registry::Refused(why) => why.clone(),
        Registry::Connected => String::new(),
    });
    match command {
        Command::ClaimBlock { reply, .. } => drop(reply.send(Err(error))),
        Command::ClaimAddress { reply, .. } => drop(reply.send(Err(error))),
        Command::Forget { reply, .. } => drop(reply.send(Err(error.to_string()))),
        _ => {}
    }
}
