//! Which callers the rules of a container let in. Pure; must never know of the kernel's rules.

use std::net::IpAddr;

use crate::allow::Who;
use crate::record::Record;

/// The origin of a call.
#[derive(Debug, Clone, Copy)]
pub enum Caller<'a> {
    /// A container of ours.
    Container(&'a Record),
    /// Any other caller.
    Stranger(IpAddr),
}

/// Whether the caller may reach the container on any port at all: both are of the same tenant, or a rule allows it.
#[must_use]
pub fn may_call(caller: Caller<'_>, called: &Record) -> bool {
    let same_tenant = |record: &Record| record.tenant() == called.tenant();
    matches!(caller, Caller::Container(record) if same_tenant(record))
        || called.traits.allow.iter().any(|grant| grant.who.means(caller))
}

impl Who {
    /// Whether it covers this caller.
    #[must_use]
    pub fn means(&self, caller: Caller<'_>) -> bool {
        match (self, caller) {
            (Self::Anyone, _) => true,
            (Self::Network(network), Caller::Stranger(address)) => network.contains(&address),
            (Self::Network(network), Caller::Container(record)) => {
                network.contains(&IpAddr::V4(record.address))
            }
            (_, Caller::Stranger(_)) => false,
            (Self::Tenant(tenant), Caller::Container(record)) => **tenant == *record.tenant(),
            (Self::App(path), Caller::Container(record)) => {
                record.traits.app.as_deref().is_some_and(|app| is_at_or_below(app, path))
            }
            (Self::Name(name), Caller::Container(record)) => record.names.contains(name),
        }
    }
}

/// Whether the app has this path, or is in the group with this path.
fn is_at_or_below(app: &str, path: &str) -> bool {
    app.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Everything that a rule could call this container, in the syntax of rules: `tenant:shop`, `app:/shop`,
/// `app:/shop/front`, `name:web`.
#[must_use]
pub fn callings(record: &Record) -> Vec<String> {
    let app = record.traits.app.as_deref().unwrap_or_default();
    let ends = app.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(place, _)| place);
    let paths = ends.chain((!app.is_empty()).then_some(app.len())).filter_map(|end| app.get(..end));
    let mut all = vec![Who::Tenant(record.tenant().into()).to_string()];
    all.extend(paths.map(|path| Who::App(path.into()).to_string()));
    all.extend(record.names.iter().map(|name| Who::Name(name.clone()).to_string()));
    all
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::allow::parse;
    use crate::name::Name;

    fn record(tenant: &str, app: Option<&str>, name: &str, allow: &str) -> Record {
        let mut record = Record::new(name, Ipv4Addr::new(10, 32, 0, 1), vec![Name::parse(name).unwrap()]);
        record.traits.tenant = Some(tenant.into());
        record.traits.app = app.map(Into::into);
        record.traits.allow = parse(allow).unwrap().into();
        record
    }

    #[test]
    fn who_may_call_whom() {
        let web = record("shop", Some("/shop/front/web"), "web", "");
        for (tenant, allow, expected) in [
            ("shop", "", true),
            ("bank", "", false),
            ("bank", "tenant:shop 80/tcp", true),
            ("bank", "tenant:other", false),
            ("bank", "app:/shop/front", true),
            ("bank", "app:/shop/front/web", true),
            ("bank", "app:/shop/fro", false),
            ("bank", "name:web", true),
            ("bank", "cidr:10.32.0.0/16", true),
            ("bank", "cidr:10.33.0.0/16", false),
            ("bank", "any", true),
        ] {
            let called = record(tenant, None, "db", allow);
            assert_eq!(may_call(Caller::Container(&web), &called), expected, "{tenant} {allow}");
            let listed =
                called.traits.allow.iter().any(|grant| callings(&web).contains(&grant.who.to_string()));
            let by_address = allow.starts_with("cidr") || allow == "any" || tenant == "shop";
            assert_eq!(listed, expected && !by_address, "what the kernel is told: {tenant} {allow}");
        }
        let stranger = Caller::Stranger(Ipv4Addr::new(192, 168, 0, 9).into());
        assert!(!may_call(stranger, &record("shop", None, "db", "tenant:shop")));
        assert!(may_call(stranger, &record("shop", None, "db", "cidr:192.168.0.0/24")));
    }
}
