//! The labels that users write: `selvedge.*`, checked at create. And ours, hidden from every answer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use selvedge_containers::label::OWN_PREFIX;
use selvedge_containers::names;
use selvedge_containers::ports;
use selvedge_engine::object::Object;
use selvedge_engine::refusal::Refusal;
use selvedge_registry::allow::{self, Grant, Protocol};
use selvedge_registry::name::Name;
use selvedge_registry::record::NamedPort;
use selvedge_registry::vip::{self, Vip};

/// What a user asked for by labels.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// `selvedge.network`.
    pub(crate) network: Option<Wanted>,
    /// `selvedge.ip`.
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether the address was asked for by `WEAVE_CIDR`.
    pub(crate) by_weave: bool,
    /// `WEAVE_CIDR=net:..`: a subnet whose addresses are for those who ask for it.
    pub(crate) subnet: Option<Ipv4Net>,
    /// `selvedge.name`: one or more, by commas or blanks.
    pub(crate) names: Vec<String>,
    /// `selvedge.tenant`.
    pub(crate) tenant: Option<String>,
    /// `selvedge.allow`.
    pub(crate) allow: Vec<Grant>,
    /// `selvedge.port.NAME`.
    pub(crate) ports: Vec<NamedPort>,
    /// `selvedge.vip`.
    pub(crate) vips: Vec<Vip>,
    /// `selvedge.exclusive`.
    pub(crate) exclusive: bool,
    /// Compose's service.
    pub(crate) compose_service: Option<String>,
    /// Compose's project.
    pub(crate) compose_project: Option<String>,
}

/// Whether a container wants a wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Also on a user-defined network.
    Default,
    /// Not at all.
    None,
}

const KNOWN: &str = "selvedge.network, .ip, .name, .tenant, .allow, .exclusive, .vip, .port.NAME";
/// As which Marathon hands an app's label `selvedge.X` to its tasks: upper case, and `_` for all that is no letter or
/// digit.
const MARATHON: &str = "MARATHON_APP_LABEL_SELVEDGE_";

/// Reads the labels of a create's body, and those of its Marathon app. A container's own counts more.
///
/// # Errors
/// A refusal with 400 that names the label.
pub(crate) fn read(labels: &BTreeMap<String, String>, env: &[String]) -> Result<Wishes, Refusal> {
    let mut wishes = Wishes::default();
    for (variable, value) in env.iter().filter_map(|pair| pair.split_once('=')) {
        let Some(key) = variable.strip_prefix(MARATHON).map(marathon_key) else { continue };
        if !labels.contains_key(&format!("selvedge.{key}")) {
            wishes.note(&key, value).map_err(|why| refusal(variable, value, &why))?;
        }
    }
    if wishes.vips.is_empty() && !labels.contains_key("selvedge.vip") {
        wishes.vips = ports::marathon_vips(env).map_err(|why| Refusal::new(400, why))?;
    }
    for (label, value) in labels {
        match label.as_str() {
            "com.docker.compose.service" => wishes.compose_service = Some(value.clone()),
            "com.docker.compose.project" => wishes.compose_project = Some(value.clone()),
            _ => {
                if let Some(key) = label.strip_prefix("selvedge.") {
                    let refuse = |why: String| refusal(&format!("label {label}"), value, &why);
                    wishes.note(key, value).map_err(refuse)?;
                }
            }
        }
    }
    Ok(wishes)
}

fn refusal(source: &str, value: &str, why: &str) -> Refusal {
    Refusal::new(400, format!("{source}={value:?}: {why}"))
}

/// `PORT_HTTP` is `port.http`.
fn marathon_key(rest: &str) -> String {
    let key = rest.to_ascii_lowercase();
    match key.strip_prefix("port_") {
        Some(name) => format!("port.{}", name.replace('_', "-")),
        None => key,
    }
}

impl Wishes {
    /// Takes in the label `selvedge.KEY`, or says what is wrong with it.
    fn note(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "network" if value == "none" => self.network = Some(Wanted::None),
            "network" if value == "default" => self.network = Some(Wanted::Default),
            "network" => return Err("must be \"default\" or \"none\"".to_owned()),
            "ip" => self.address = Some(value.parse().map_err(|_| "is not an IPv4 address".to_owned())?),
            "name" => self.names = names(value)?,
            "tenant" => self.tenant = Some(allow::tenant(value)?.into()),
            "allow" => self.allow = allow::parse(value).map_err(|error| error.to_string())?,
            "vip" => self.vips = vips(value)?,
            "exclusive" => self.exclusive = truth(value)?,
            _ if key.starts_with("port.") => {
                let port = port(&key["port.".len()..], value)?;
                self.ports.retain(|other| other.name != port.name || other.protocol != port.protocol);
                self.ports.push(port);
            }
            _ if key.starts_with("internal.") => return Err("is written by Selvedge alone".to_owned()),
            _ => return Err(format!("is not a label of Selvedge ({KNOWN})")),
        }
        Ok(())
    }
}

/// Virtual addresses, whose names are names.
fn vips(value: &str) -> Result<Vec<Vip>, String> {
    let vips = vip::parse(value).map_err(|error| error.to_string())?;
    let is_address = |vip: &&Vip| vip.name.to_string().parse::<Ipv4Addr>().is_ok();
    match vips.iter().find(is_address) {
        Some(vip) => {
            Err(format!("{:?} must be a name; its address is chosen by Selvedge", vip.name.to_string()))
        }
        None => Ok(vips),
    }
}

fn truth(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

fn names(value: &str) -> Result<Vec<String>, String> {
    let parts = value.split([',', ' ']).filter(|part| !part.is_empty());
    let names: Result<Vec<_>, _> = parts
        .map(|part| match Name::parse(part).map(|name| name.to_string()) {
            Ok(name) if names::is_virtual(&name) => {
                Err(format!("{part:?}: names below vip are those of virtual addresses"))
            }
            Ok(name) => Ok(name),
            Err(error) => Err(format!("{part:?}: {error}")),
        })
        .collect();
    names.and_then(|names| if names.is_empty() { Err("is empty".to_owned()) } else { Ok(names) })
}

/// A named port, from the label's last part and its value.
fn port(name: &str, value: &str) -> Result<NamedPort, String> {
    let (number, protocol) = value.split_once('/').unwrap_or((value, "tcp"));
    let number = number.parse::<u16>().ok().filter(|number| *number > 0);
    let (Some(number), Some(protocol)) = (number, Protocol::parse(protocol)) else {
        return Err("must be like 8080/tcp or 53/udp".to_owned());
    };
    let name = ports::label(name).ok_or("a port's name is 1 to 62 letters, digits and '-'")?;
    Ok(NamedPort { name, number, protocol })
}

/// Takes our own labels out of a `Labels` object; whether there were any.
pub(crate) fn hide(labels: &mut Object) -> bool {
    let before = labels.iter().count();
    labels.retain(|key| !key.starts_with(OWN_PREFIX));
    labels.iter().count() != before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wishes(pairs: &[(&str, &str)]) -> Result<Wishes, Refusal> {
        read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), &[])
    }

    #[test]
    fn known_labels_are_read() {
        let read = wishes(&[
            ("selvedge.ip", "10.32.7.7"),
            ("selvedge.name", "a, B.c"),
            ("selvedge.network", "default"),
            ("x", "y"),
        ])
        .unwrap();
        assert_eq!(read.address, Some(Ipv4Addr::new(10, 32, 7, 7)));
        assert_eq!(read.names, ["a", "b.c"]);
        assert_eq!(read.network, Some(Wanted::Default));
    }

    #[test]
    fn wrong_ones_are_refused_by_name() {
        for (key, value) in [
            ("selvedge.ip", "10.32.7"),
            ("selvedge.nmae", "x"),
            ("selvedge.name", "a..b"),
            ("selvedge.name", ""),
            ("selvedge.name", "a db.vip"),
            ("selvedge.network", "yes"),
            ("selvedge.port.http", "0"),
            ("selvedge.port.http", "80/sctp"),
            ("selvedge.port._x", "80"),
            ("selvedge.allow", "anybody"),
            ("selvedge.exclusive", "yes"),
            ("selvedge.tenant", ""),
            ("selvedge.vip", "db"),
            ("selvedge.vip", "db:80,remote"),
            ("selvedge.vip", "10.47.0.1:80"),
            ("selvedge.internal.wire", ""),
        ] {
            let refusal = wishes(&[(key, value)]).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.contains(key), "{}", refusal.message);
        }
    }
    #[test]
    fn an_app_s_labels_count_unless_the_container_has_its_own() {
        let labels = BTreeMap::from([("selvedge.tenant".to_owned(), "bank".to_owned())]);
        let env = ["ALLOW=any 443", "TENANT=shop", "PORT_ADMIN_UI=8081", "EXCLUSIVE=true"];
        let env = env.map(|pair| format!("{MARATHON}{pair}"));
        let wishes = read(&labels, &env).unwrap();
        assert_eq!(wishes.tenant.as_deref(), Some("bank"));
        assert_eq!(allow::text(&wishes.allow), "any 443/tcp");
        assert_eq!((&*wishes.ports[0].name, wishes.ports[0].number), ("admin-ui", 8081));
        assert!(wishes.exclusive);
        let refusal = read(&labels, &[format!("{MARATHON}ALLOW=any 80/tcp,nobody")]).unwrap_err();
        assert!(
            refusal.message.contains("MARATHON_APP_LABEL_SELVEDGE_ALLOW")
                && refusal.message.contains("column 12")
        );
    }
}
