//! The grammar of the label `selvedge.allow`: rules about who may call a container. Pure; must never know of the
//! kernel's rules.
//!
//! ```text
//! rules = rule *( "," rule )
//! rule  = who *( blank ports )
//! who   = "tenant:" NAME / "app:" PATH / "name:" NAME / "cidr:" NETWORK / "any"
//! ports = NUMBER [ "-" NUMBER ] [ "/" ( "tcp" / "udp" ) ]            ; without a protocol: tcp
//! ```

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::Name;

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol that `tcp` or `udp` names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// One rule: these callers may connect, on these ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub who: Who,
    /// The ports; empty means all ports and all protocols.
    pub ports: Box<[Ports]>,
}

/// The callers that a rule covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// All containers of a tenant.
    Tenant(Box<str>),
    /// All instances of a Marathon app, and of the apps below it: `/shop/front`.
    App(Box<str>),
    /// All containers with this name, relative to the domain.
    Name(Name),
    /// All callers in this network, containers or not.
    Network(IpNet),
    /// Every caller.
    Anyone,
}

/// Ports from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
    /// The protocol of the ports.
    pub protocol: Protocol,
}

/// An error in a text of rules, and its position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {why}")]
pub struct AllowError {
    /// The first invalid character, counted from 1.
    pub column: usize,
    /// What is wrong with it.
    pub why: String,
}

/// Parses rules; an empty text has none.
///
/// # Errors
/// The first error, with its column.
pub fn parse(text: &str) -> Result<Vec<Grant>, AllowError> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut grants = Vec::new();
    let mut start = 0;
    for rule in text.split(',') {
        grants.push(parse_rule(rule, text, start)?);
        start += rule.len() + 1;
    }
    Ok(grants)
}

/// One rule, which begins at byte `start` of the whole text.
fn parse_rule(rule: &str, text: &str, start: usize) -> Result<Grant, AllowError> {
    let at = |byte: usize, why: String| {
        let before = text.get(..start + byte).unwrap_or(text);
        AllowError { column: before.chars().count() + 1, why }
    };
    let mut words = words(rule);
    let Some((place, word)) = words.next() else {
        return Err(at(rule.len(), "a rule is missing here".to_owned()));
    };
    let who = parse_who(word).map_err(|(offset, why)| at(place + offset, why))?;
    let ports: Result<Box<[Ports]>, _> =
        words.map(|(place, word)| parse_ports(word).map_err(|why| at(place, why))).collect();
    Ok(Grant { who, ports: ports? })
}

/// The words, each with the byte offset at which it begins.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let place = |word: &str| word.as_ptr() as usize - text.as_ptr() as usize;
    text.split_whitespace().map(move |word| (place(word), word))
}

/// Parses a caller; an error has the offset within the word.
fn parse_who(word: &str) -> Result<Who, (usize, String)> {
    if word == "any" {
        return Ok(Who::Anyone);
    }
    let (kind, value) = word.split_once(':').unwrap_or((word, ""));
    let offset = kind.len() + 1;
    let told = |why: String| (offset, why);
    match kind {
        "tenant" => tenant(value).map(Who::Tenant).map_err(told),
        "app" => app(value).map(Who::App).map_err(told),
        "name" => Name::parse(value).map(Who::Name).map_err(|error| told(error.to_string())),
        "cidr" => network(value).map(Who::Network).map_err(told),
        _ => Err((
            0,
            format!("{word:?} is not one of tenant:NAME, app:/PATH, name:NAME, cidr:NETWORK and any"),
        )),
    }
}

/// A tenant's name: letters, digits, `.`, `_` and `-`, at most 63.
///
/// # Errors
/// What is wrong with it.
pub fn tenant(text: &str) -> Result<Box<str>, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match text {
        "" => Err("a tenant's name is missing".to_owned()),
        _ if text.len() > 63 => Err(format!("{text:?} is longer than 63 characters")),
        _ if !text.bytes().all(allowed) => {
            Err(format!("{text:?} may have only letters, digits, '.', '_' and '-'"))
        }
        _ => Ok(text.into()),
    }
}

fn app(text: &str) -> Result<Box<str>, String> {
    let path = text.trim_end_matches('/');
    match path.strip_prefix('/') {
        Some(rest) if !rest.split('/').any(str::is_empty) => Ok(path.into()),
        _ => Err(format!("{text:?} is not the path of an app or a group, such as /shop/front")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet =
        text.parse().map_err(|_| format!("{text:?} is not a network, such as 10.0.0.0/8"))?;
    if network.trunc() != network {
        return Err(format!("{text:?} has bits set beyond its prefix; the network is {}", network.trunc()));
    }
    Ok(network)
}

fn parse_ports(word: &str) -> Result<Ports, String> {
    let wrong = || format!("{word:?} is not a port, such as 5432/tcp or 8000-8100/udp");
    let (numbers, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or_else(wrong)?;
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Ports { first, last, protocol }),
        (Some(_), Some(_)) => Err(format!("{word:?} ends before it begins")),
        _ => Err(wrong()),
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant:{tenant}"),
            Self::App(path) => write!(f, "app:{path}"),
            Self::Name(name) => write!(f, "name:{name}"),
            Self::Network(network) => write!(f, "cidr:{network}"),
            Self::Anyone => f.write_str("any"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, protocol } = self;
        if first == last { write!(f, "{first}/{protocol}") } else { write!(f, "{first}-{last}/{protocol}") }
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.who)?;
        self.ports.iter().try_for_each(|ports| write!(f, " {ports}"))
    }
}

/// Writes the rules as a text that [`parse`] reads back.
#[must_use]
pub fn text(grants: &[Grant]) -> String {
    grants.iter().map(Grant::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_back() {
        for (given, canonical) in [
            ("tenant:web", "tenant:web"),
            (" tenant:web  5432/tcp 8000-8100/udp ", "tenant:web 5432/tcp 8000-8100/udp"),
            ("app:/shop/front/, name:Grafana 80", "app:/shop/front,name:grafana 80/tcp"),
            ("cidr:10.0.0.0/8,cidr:10.1.2.3,cidr:fd00::/8", "cidr:10.0.0.0/8,cidr:10.1.2.3/32,cidr:fd00::/8"),
            ("any 443-443/tcp", "any 443/tcp"),
            ("", ""),
        ] {
            let grants = parse(given).unwrap();
            assert_eq!(text(&grants), canonical);
            assert_eq!(parse(canonical).unwrap(), grants);
        }
    }

    #[test]
    fn an_error_says_its_column() {
        for (given, column) in [
            ("tennant:web", 1),
            ("tenant:", 8),
            ("tenant:web,", 12),
            ("any, ,any", 6),
            ("tenant:web 5432/sctp", 12),
            ("tenant:wéb", 8),
            ("tenant:web 80,app:shop", 19),
            ("any 90-80/tcp", 5),
            ("any 0/tcp", 5),
            ("any 80/tcp 65536", 12),
            ("name:a..b", 6),
            ("cidr:10.0.0.1/8", 6),
            ("cidr:ten", 6),
        ] {
            let error = parse(given).unwrap_err();
            assert_eq!(error.column, column, "{given:?}: {error}");
        }
    }
}
