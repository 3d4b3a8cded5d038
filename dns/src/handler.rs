//! Decides how to treat one message: answer it, ignore it, or ask upstreams. It must never wait.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use selvedge_registry::caller::Caller;
use selvedge_registry::table::sight::Sight;
use selvedge_registry::table::{Found, Table};

use crate::general::{self, Read};
use crate::identity;
use crate::options::{Opt, Why};
use crate::plain::{self, Terms};
use crate::query::{HEADER, Query, Transport, flag, rcode, word};
use crate::settings::Settings;
use crate::stats::Stats;
use crate::zone::answer::Answer;
use crate::zone::zones::Zones;

/// How to treat a message.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The answer is in the buffer.
    Reply,
    /// It gets no answer.
    Nothing,
    /// Upstreams have to be asked.
    Forward(Box<Forward>),
}

/// A question for upstreams.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) query: Query,
    pub(crate) asker: IpAddr,
    /// None means the host's.
    pub(crate) upstreams: Option<Arc<[SocketAddr]>>,
}

/// What it takes to answer.
#[derive(Debug)]
pub(crate) struct Handler {
    zones: Zones,
    listen: SocketAddr,
    ttl: u32,
    negative_ttl: u32,
    /// What this server is called.
    server: String,
    stats: Arc<Stats>,
}

impl Handler {
    pub(crate) fn new(settings: &Settings, stats: Arc<Stats>) -> Self {
        let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Self {
            zones: Zones::new(settings.listen, settings.pool),
            listen: settings.listen,
            ttl: seconds(settings.ttl),
            negative_ttl: seconds(settings.negative_ttl),
            server: settings.server.clone(),
            stats,
        }
    }

    /// Reads a message and writes the answer, if it can be given here, into `out`, which must be empty.
    pub(crate) fn handle(
        &self,
        table: &Table,
        message: &[u8],
        (asker, transport): (IpAddr, Transport),
        out: &mut Vec<u8>,
    ) -> Outcome {
        // Without an id there is no query to answer; answering an answer could go on for ever.
        let flags = word(message, 2).filter(|_| message.len() >= HEADER);
        if flags.is_none_or(|flags| flags & flag::RESPONSE != 0) {
            self.stats.malformed.one();
            return Outcome::Nothing;
        }
        let query = match plain::read(message) {
            Some(query) => query,
            None => match general::read(message) {
                Read::Query(query) => *query,
                Read::Identity(query) => {
                    self.stats.local.one();
                    identity::write(&query, &self.server, out);
                    self.complete(&query, None, query.limit(transport), out);
                    return Outcome::Reply;
                }
                Read::Bad { reply, code } => {
                    let refused = matches!(code, rcode::REFUSED | rcode::NOTIMP);
                    if refused { &self.stats.refused } else { &self.stats.malformed }.one();
                    out.extend_from_slice(&reply);
                    return if reply.is_empty() { Outcome::Nothing } else { Outcome::Reply };
                }
            },
        };
        let sight = Sight::new(table, self.caller(table, asker));
        match self.zones.answer(sight, &query.lower, query.kind) {
            Some(answer) if !self.is_asked_elsewhere(table, &answer, asker) => {
                let unread = matches!(answer, Answer::Unread { .. });
                if unread { &self.stats.servfail } else { &self.stats.local }.one();
                let limit = query.limit(transport);
                write(&query, &answer, &self.terms(table), limit, out);
                self.complete(&query, why(table, sight, &query, &answer), limit, out);
                Outcome::Reply
            }
            _ => Outcome::Forward(Box::new(self.forward(table, query, asker))),
        }
    }

    /// Says why, and who we are, to an asker that speaks EDNS.
    fn complete(&self, query: &Query, why: Option<Why>, limit: usize, out: &mut Vec<u8>) {
        if let Some(opt) = query.edns.and_then(|_| Opt::bare(out)) {
            opt.complete(query, (&self.server, why), limit, out);
        }
    }

    /// The asker, where that makes a difference. This host itself sees everything.
    fn caller<'t>(&self, table: &'t Table, asker: IpAddr) -> Option<Caller<'t>> {
        let asker = asker.to_canonical();
        if !table.is_isolated() || self.zones.is_host(asker) {
            return None;
        }
        let container = match asker {
            IpAddr::V4(address) => table.owner(address),
            IpAddr::V6(_) => None,
        };
        Some(container.map_or(Caller::Stranger(asker), Caller::Container))
    }

    fn terms<'t>(&self, table: &'t Table) -> Terms<'t> {
        // A serial wraps (RFC 1982): the lower half of the version is enough.
        let serial = (table.version() & u64::from(u32::MAX)) as u32;
        Terms { ttl: self.ttl, negative_ttl: self.negative_ttl, serial, domain: table.domain() }
    }

    /// A name of one label that we do not know: a server on the LAN may know it, so it is asked as libc would ask it.
    /// While the table is incomplete, only the container's own servers are asked: the host's could deny a name that is
    /// ours.
    fn is_asked_elsewhere(&self, table: &Table, answer: &Answer<'_>, asker: IpAddr) -> bool {
        match answer {
            Answer::NxDomain(None) => true,
            Answer::Unread { ours: false } => self.upstreams(table, asker).is_some(),
            _ => false,
        }
    }

    fn forward(&self, table: &Table, query: Query, asker: IpAddr) -> Forward {
        Forward { query, asker, upstreams: self.upstreams(table, asker) }
    }

    fn upstreams(&self, table: &Table, asker: IpAddr) -> Option<Arc<[SocketAddr]>> {
        let IpAddr::V4(asker) = asker.to_canonical() else { return None };
        let upstreams = table.upstreams(asker);
        let others: Vec<SocketAddr> = upstreams.iter().copied().filter(|one| *one != self.listen).collect();
        (!others.is_empty()).then(|| others.into())
    }
}

/// Why a name of ours has no answer, where there is more to say than that.
fn why(table: &Table, sight: Sight<'_>, query: &Query, answer: &Answer<'_>) -> Option<Why> {
    query.edns?;
    let wire = query.lower.wire();
    match answer {
        Answer::Unread { .. } => Some(Why::NOT_READY),
        // What this asker does not see, another one may.
        Answer::NxDomain(Some(_))
            if sight.hides(wire) || matches!(table.lookup(wire), Found::Addresses(_)) =>
        {
            Some(Why::PROHIBITED)
        }
        _ => None,
    }
}

/// Writes the answer by the plain path, or else by the general one.
fn write(query: &Query, answer: &Answer<'_>, terms: &Terms<'_>, limit: usize, out: &mut Vec<u8>) {
    if plain::write(query, answer, terms, limit, out) {
        return;
    }
    out.clear();
    match general::write(query, answer, terms, limit) {
        Some(reply) => *out = reply,
        None => query.bare_reply(query.reply_flags(rcode::SERVFAIL), out),
    }
}

#[cfg(test)]
mod tests;
