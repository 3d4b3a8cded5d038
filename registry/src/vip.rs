//! Which virtual addresses a container declares: the grammar of the label `selvedge.vip`. Pure data; must never know
//! which containers stand behind one.

use std::fmt;

use crate::allow::Protocol;
use crate::name::Name;

/// The label below the domain that holds all names of virtual addresses: `db.vip.DOMAIN`.
pub const LABEL: &str = "vip";

/// One port of a virtual address that a container stands behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The name of the virtual address: relative, without `.vip`.
    pub name: Name,
    /// The port that clients call.
    pub port: u16,
    /// The container's own port behind it.
    pub target: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Prefer instances on the client's own host, as long as there is one.
    pub local: bool,
}

/// An error in the text of a virtual address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} (column {column}): {reason}")]
pub struct VipError {
    word: String,
    column: usize,
    reason: String,
}

const FORM: &str = "must be like db:5432, web:80:8080, dns:53/udp or db:5432,local";

/// Parses `db:5432`, `web:80:8080` (where the container's own port differs), `dns:53/udp`, each optionally with
/// `,local`; several are separated by blanks.
///
/// # Errors
/// [`VipError`] with the invalid word, and where it begins.
pub fn parse(text: &str) -> Result<Vec<Vip>, VipError> {
    let mut vips: Vec<Vip> = Vec::new();
    for word in text.split_ascii_whitespace() {
        let column = word.as_ptr() as usize - text.as_ptr() as usize + 1;
        let fail = |reason: &str| VipError { word: word.to_owned(), column, reason: reason.to_owned() };
        let vip = one(word).map_err(|reason| fail(&reason))?;
        if vips.iter().any(|other| other.is_same_port(&vip)) {
            return Err(fail("repeats an earlier port of the same name"));
        }
        vips.push(vip);
    }
    match vips.is_empty() {
        true => Err(VipError { word: text.to_owned(), column: 1, reason: FORM.to_owned() }),
        false => Ok(vips),
    }
}

fn one(word: &str) -> Result<Vip, String> {
    let (rest, local) = match word.split_once(',') {
        None => (word, false),
        Some((rest, "local")) => (rest, true),
        Some(_) => return Err(FORM.to_owned()),
    };
    let (name, ports) = rest.split_once(':').ok_or(FORM)?;
    let (numbers, protocol) = ports.split_once('/').unwrap_or((ports, "tcp"));
    let protocol = Protocol::parse(protocol).ok_or("the protocol must be tcp or udp")?;
    let (port, target) = numbers.split_once(':').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0);
    let (Some(port), Some(target)) = (number(port), number(target)) else {
        return Err("a port must be 1 to 65535".to_owned());
    };
    let name = Name::parse(name).map_err(|error| error.to_string())?;
    if name.is_absolute() {
        return Err("the name must not end with a dot".to_owned());
    }
    Ok(Vip { name, port, target, protocol, local })
}

impl Vip {
    fn is_same_port(&self, other: &Self) -> bool {
        (&self.name, self.port, self.protocol) == (&other.name, other.port, other.protocol)
    }

    /// Its key in the registry: where tenants are kept apart, each has its own names.
    #[must_use]
    pub fn key(&self, tenant: Option<&str>) -> String {
        tenant.map_or_else(|| self.name.to_string(), |tenant| format!("{tenant}/{}", self.name))
    }
}

/// In the syntax that [`parse`] reads.
impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, target, protocol, local } = self;
        write!(f, "{name}:{port}")?;
        if target != port {
            write!(f, ":{target}")?;
        }
        write!(f, "/{protocol}{}", if *local { ",local" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Result<String, String> {
        let vips = parse(text).map_err(|error| error.to_string())?;
        Ok(vips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_is_read_is_written_again() {
        for (text, expected) in [
            ("db:5432", "db:5432/tcp"),
            (" DB.shop:5432,local  dns:53/udp ", "db.shop:5432/tcp,local dns:53/udp"),
            ("web:80:8080", "web:80:8080/tcp"),
            ("web:80:80/tcp,local", "web:80/tcp,local"),
            ("dns:53 dns:53/udp", "dns:53/tcp dns:53/udp"),
        ] {
            assert_eq!(told(text).as_deref(), Ok(expected), "{text}");
            assert_eq!(told(expected).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_column() {
        for (text, column) in [
            ("", 1),
            ("db", 1),
            ("db:0", 1),
            ("a:1 db:70000", 5),
            ("a:1  db:1/sctp", 6),
            ("db:1,remote", 1),
            ("db.:1", 1),
            ("a..b:1", 1),
            ("db:1 db:1:2", 6),
            ("db:1:", 1),
        ] {
            let error = told(text).unwrap_err();
            assert!(error.contains(&format!("(column {column})")), "{text:?}: {error}");
        }
    }
}
