//! What a create says about names, and what becomes of it: the user's own words stay as they are, and ours follow. It must
//! never drop a server or a domain that the user, the engine's settings or the host named.

use std::net::IpAddr;

use selvedge_containers::label::Kept;
use selvedge_containers::names;
use selvedge_dns::resolv_conf::{self, ResolvConf};
use selvedge_engine::object::{BodyError, Object};
use selvedge_engine::resolver::Resolver;

use crate::api::Api;

/// What was in the places that were rewritten, and the container's own servers.
pub(super) struct Rewritten {
    pub(super) dns: Kept,
    pub(super) search: Kept,
    pub(super) upstreams: Vec<IpAddr>,
}

/// Lets the container ask us. Its own servers become its upstreams, unless one is a loopback address: then
/// it has a resolver of its own inside, which stays what it asks.
pub(super) fn rewrite(api: &Api, host: &mut Object) -> Result<Rewritten, BodyError> {
    let sent = host.get::<Vec<String>>("Dns")?;
    let servers = || sent.iter().flatten();
    let upstreams: Vec<IpAddr> = servers().filter_map(|server| server.parse().ok()).collect();
    // One that is no address is the engine's to judge: old ones take it, and libc passes over it.
    let odd = servers().filter(|server| server.parse::<IpAddr>().is_err()).cloned();
    if upstreams.iter().any(IpAddr::is_loopback) {
        return Ok(Rewritten { dns: Kept::Same, search: Kept::Same, upstreams: Vec::new() });
    }
    let ours = api.settings.dns.to_string();
    host.set("Dns", &std::iter::once(ours).chain(odd).collect::<Vec<_>>());
    let search = host.get::<Vec<String>>("DnsSearch")?;
    let kept = if search.as_ref().is_none_or(Vec::is_empty) {
        let ours = api.settings.domain.to_string();
        let others = without_ours(&api.containers.engine.resolver());
        let domains: Vec<String> = std::iter::once(ours).chain(others).collect();
        host.set("DnsSearch", &domains);
        Kept::Was(search)
    } else {
        Kept::Same
    };
    Ok(Rewritten { dns: Kept::Was(sent), search: kept, upstreams })
}

/// The search list that the container would have without us: the engine's own setting, else the host's.
fn without_ours(engine: &Resolver) -> Vec<String> {
    if !engine.search.is_empty() {
        return engine.search.iter().filter(|domain| *domain != ".").cloned().collect();
    }
    let path = resolv_conf::real(resolv_conf::PATH.as_ref());
    ResolvConf::parse(&resolv_conf::read(&path)).search
}

/// The program sees a hostname that means something elsewhere too, where the user chose none. Whether the user did.
pub(super) fn set_hostname(
    (top, host): (&mut Object, &Object),
    names: &[String],
    name: Option<&str>,
) -> Result<bool, BodyError> {
    let chosen = top.get::<String>("Hostname")?.is_some_and(|hostname| !hostname.is_empty());
    let shares_uts = host.get::<String>("UTSMode")?.is_some_and(|mode| mode == "host");
    let first = names.first().map(String::as_str).or(name).and_then(names::host_label);
    if let Some(first) = first.filter(|_| !chosen && !shares_uts) {
        top.set("Hostname", &first);
    }
    Ok(chosen)
}
