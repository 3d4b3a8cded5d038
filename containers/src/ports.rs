//! The named ports of a container, for SRV: from labels, from Marathon, or else from what the image exposes. And the
//! virtual addresses that Marathon's labels name. Pure.

use std::collections::BTreeMap;

use selvedge_registry::allow::Protocol;
use selvedge_registry::record::NamedPort;
use selvedge_registry::vip::{self, Vip};

/// Marathon's variables are `PORT_` and a port's name or number.
const MARATHON: &str = "PORT_";
/// As which Marathon hands an app's label `VIP_0` to its tasks.
const VIP: &str = "MARATHON_APP_LABEL_VIP_";

/// Nomad's are `NOMAD_PORT_` and a port's label, with the number inside.
const NOMAD: &str = "NOMAD_PORT_";

/// All named ports: labels first, each name and protocol once. What is only exposed has its number for a name.
pub fn ports(labels: Vec<NamedPort>, env: &[String], exposed: &[String]) -> Vec<NamedPort> {
    let mut ports = labels;
    for port in marathon(env).into_iter().chain(nomad(env)) {
        if ports.iter().all(|other| other.name != port.name) {
            ports.push(port);
        }
    }
    if ports.is_empty() {
        ports.extend(exposed.iter().filter_map(|text| expose(text)));
    }
    ports
}

/// Marathon says of each port what number it has outside: `PORT_8080=31005` and, if it is named, `PORT_HTTP=31005`. On
/// a network of its own a container is reached at the inner one. It does not say by which protocol: TCP, mostly.
fn marathon(env: &[String]) -> Vec<NamedPort> {
    let pairs = outer_ports(env);
    let named = pairs.iter().filter(|(name, _)| name.parse::<u16>().is_err());
    named
        .filter_map(|(name, outer)| {
            let name = label(&name.replace('_', "-"))?;
            let number = inner_port(&pairs, *outer).unwrap_or(*outer);
            (number > 0).then_some(NamedPort { name, number, protocol: Protocol::Tcp })
        })
        .collect()
}

/// Nomad says of each port of the group what number it has inside: `NOMAD_PORT_http=8080`. TCP, mostly.
fn nomad(env: &[String]) -> impl Iterator<Item = NamedPort> {
    let pairs = env.iter().filter_map(|pair| pair.strip_prefix(NOMAD)?.split_once('='));
    pairs.filter_map(|(name, value)| {
        let number = value.parse::<u16>().ok().filter(|number| *number > 0)?;
        Some(NamedPort { name: label(&name.replace('_', "-"))?, number, protocol: Protocol::Tcp })
    })
}

/// What Marathon calls ports, and the numbers that they have outside.
fn outer_ports(env: &[String]) -> BTreeMap<&str, u16> {
    let pairs = env.iter().filter_map(|pair| pair.strip_prefix(MARATHON)?.split_once('='));
    pairs.filter_map(|(name, value)| Some((name, value.parse().ok()?))).collect()
}

/// The number inside of the container of a port that has this one outside.
fn inner_port(pairs: &BTreeMap<&str, u16>, outer: u16) -> Option<u16> {
    let number = |name: &&str| name.parse::<u16>().ok().filter(|number| *number > 0);
    pairs.iter().filter(|(_, value)| **value == outer).find_map(|(name, _)| number(name))
}

/// The virtual addresses of a Marathon app's labels `VIP_0=/db:5432`, as DC/OS has them: the container's own port is that
/// of the app's first port (`VIP_1`: of its second). Slashes fall away, as there.
///
/// # Errors
/// The variable, its value, and what is wrong with it.
pub fn marathon_vips(env: &[String]) -> Result<Vec<Vip>, String> {
    let mut vips = Vec::new();
    for (index, value) in env.iter().filter_map(|pair| pair.strip_prefix(VIP)?.split_once('=')) {
        let told = |why: &str| format!("{VIP}{index}={value:?}: {why}");
        let name = value.replace('/', "");
        let mut vip = match vip::parse(&name).map_err(|error| told(&error.to_string()))?.as_slice() {
            [vip] => vip.clone(),
            _ => return Err(told("must be one name and port")),
        };
        let outer = env.iter().find_map(|pair| pair.strip_prefix(&format!("PORT{index}="))?.parse().ok());
        if let Some(inner) = outer.and_then(|outer| inner_port(&outer_ports(env), outer)) {
            vip.target = inner;
        }
        vips.push(vip);
    }
    Ok(vips)
}

/// `8080/tcp`, as an image's `ExposedPorts` has it.
fn expose(text: &str) -> Option<NamedPort> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol)?;
    let number = number.parse::<u16>().ok().filter(|number| *number > 0)?;
    Some(NamedPort { name: number.to_string().into(), number, protocol })
}

/// A port's name as it stands in a DNS name behind an underscore: 1 to 62 letters, digits and `-`, in lower case.
pub fn label(text: &str) -> Option<Box<str>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((1..=62).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ports: &[NamedPort]) -> Vec<String> {
        ports.iter().map(|port| format!("{} {}/{}", port.name, port.number, port.protocol)).collect()
    }

    fn of(env: &[&str], exposed: &[&str]) -> Vec<String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        told(&ports(Vec::new(), &owned(env), &owned(exposed)))
    }

    #[test]
    fn marathon_s_names_lead_to_the_inner_ports() {
        let bridge =
            ["PORT=31005", "PORT0=31005", "PORT_8080=31005", "PORT_HTTP=31005", "PORTS=31005", "PORT_X_Y=9"];
        assert_eq!(of(&bridge, &["80/tcp"]), ["http 8080/tcp", "x-y 9/tcp"]);
        assert_eq!(of(&["PORT_HTTP=8080"], &[]), ["http 8080/tcp"]);
    }

    #[test]
    fn nomad_s_names_lead_to_the_inner_ports() {
        let env =
            ["NOMAD_PORT_http=8080", "NOMAD_PORT_admin_ui=9", "NOMAD_HOST_PORT_http=21005", "NOMAD_PORT_x=0"];
        assert_eq!(of(&env, &["80/tcp"]), ["http 8080/tcp", "admin-ui 9/tcp"]);
    }

    #[test]
    fn marathon_s_virtual_addresses_lead_to_the_inner_ports() {
        let vips = |env: &[&str]| {
            let env: Vec<String> = env.iter().map(|pair| (*pair).to_owned()).collect();
            marathon_vips(&env).map(|vips| vips.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let env = ["MARATHON_APP_LABEL_VIP_0=/db:5432", "PORT0=31005", "PORT_6000=31005"];
        assert_eq!(vips(&env).unwrap(), ["db:5432:6000/tcp"]);
        assert_eq!(vips(&["MARATHON_APP_LABEL_VIP_0=/shop/db:80"]).unwrap(), ["shopdb:80/tcp"]);
        assert!(vips(&["MARATHON_APP_LABEL_VIP_1=db"]).unwrap_err().contains("MARATHON_APP_LABEL_VIP_1"));
    }

    #[test]
    fn what_is_exposed_counts_where_nothing_is_named() {
        assert_eq!(of(&["A=B"], &["53/udp", "80/tcp", "9/sctp", "x"]), ["53 53/udp", "80 80/tcp"]);
        let http = NamedPort { name: "http".into(), number: 8080, protocol: Protocol::Tcp };
        assert_eq!(
            told(&ports(vec![http], &["PORT_HTTP=1".to_owned()], &["80/tcp".to_owned()])),
            ["http 8080/tcp"]
        );
    }
}
