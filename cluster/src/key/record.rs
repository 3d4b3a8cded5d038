//! A container's record as the text that is its key in the registry. Must read what later versions write, as far as it
//! understands it.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use selvedge_registry::allow;
use selvedge_registry::name::Name;
use selvedge_registry::record::{NamedPort, Record, Traits};
use selvedge_registry::vip;

/// How many digits of a container's id a record has: Docker's short form.
const SHORT_ID: usize = 12;
/// Characters that would end a field, or a node in ZooKeeper's tree.
const SPECIAL: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'/').add(b';');

/// Writes a record as text: `ID;a=10.32.5.7;n=web.shop;n=web1`. Readers skip unknown fields, so that later versions can
/// add some.
#[must_use]
pub fn write_record(record: &Record) -> String {
    let id = record.id.get(..SHORT_ID).unwrap_or(&record.id);
    let mut text = format!("{id};a={}", record.address);
    let mut write = |field: char, value: &str| {
        text.extend([";", field.encode_utf8(&mut [0; 4]), "="]);
        text.extend(utf8_percent_encode(value, SPECIAL));
    };
    for name in &record.names {
        write('n', &name.to_string());
    }
    let traits = &record.traits;
    traits.tenant.iter().for_each(|tenant| write('t', tenant));
    traits.app.iter().for_each(|app| write('p', app));
    if !traits.allow.is_empty() {
        write('w', &allow::text(&traits.allow));
    }
    traits.ports.iter().for_each(|port| write('s', &port.to_string()));
    traits.vips.iter().for_each(|vip| write('v', &vip.to_string()));
    if traits.unhealthy {
        write('h', "0");
    }
    if traits.exclusive {
        write('x', "1");
    }
    if traits.since > 0 {
        write('b', &traits.since.to_string());
    }
    text
}

/// Reads the record of a host's container; its id becomes `HOST/ID`.
#[must_use]
pub fn read_record(host: &str, text: &str) -> Option<Record> {
    let mut fields = text.split(';');
    let id = fields.next().filter(|id| !id.is_empty())?;
    let (mut address, mut names, mut traits) = (None, Vec::new(), Traits::default());
    let (mut ports, mut vips) = (Vec::new(), Vec::new());
    for field in fields {
        let (field, value) = field.split_once('=')?;
        let value = percent_decode_str(value).decode_utf8().ok()?;
        match field {
            "a" => address = Some(value.parse().ok()?),
            "n" => names.push(Name::parse(&value).ok()?),
            "s" => ports.extend(NamedPort::parse(&value)),
            "v" => vips.extend(vip::parse(&value).unwrap_or_default()),
            _ => read_trait(&mut traits, field, &value),
        }
    }
    (traits.ports, traits.vips) = (ports.into(), vips.into());
    Some(Record { traits, ..Record::new(format!("{host}/{id}"), address?, names) })
}

/// Ignores values it cannot read: a rule from a later version allows nothing here.
fn read_trait(traits: &mut Traits, field: &str, value: &str) {
    match field {
        "t" => traits.tenant = Some(value.into()),
        "p" => traits.app = Some(value.into()),
        "w" => traits.allow = allow::parse(value).unwrap_or_default().into(),
        "h" => traits.unhealthy = value == "0",
        "x" => traits.exclusive = value == "1",
        "b" => traits.since = value.parse().unwrap_or(0),
        _ => {}
    }
}

/// The container that a record belongs to: the first field of its text.
#[must_use]
pub(crate) fn record_id(text: &str) -> &str {
    text.split(';').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use selvedge_registry::allow::Protocol;

    use super::*;

    #[test]
    fn a_record_of_a_later_version_is_understood_as_far_as_it_goes() {
        let record = read_record("h", "0123456789ab;T=shop;a=10.32.5.7;xy=;n=web;w=planet:mars").unwrap();
        assert_eq!((record.id.as_str(), record.address.to_string()), ("h/0123456789ab", "10.32.5.7".into()));
        assert_eq!(record.names, [Name::parse("web").unwrap()]);
        assert!(record.traits.allow.is_empty());
    }

    #[test]
    fn everything_is_read_back_and_fits_into_a_node_s_name() {
        let mut record =
            Record::new("h/0123456789ab", [10, 32, 5, 7].into(), vec![Name::parse("web").unwrap()]);
        let http = NamedPort { name: "http".into(), number: 8080, protocol: Protocol::Tcp };
        record.traits = Traits {
            tenant: Some("shop".into()),
            app: Some("/shop/front/web".into()),
            allow: allow::parse("tenant:bank 80/tcp 8000-8100/udp, cidr:10.0.0.0/8").unwrap().into(),
            ports: [http].into(),
            vips: vip::parse("db:5432,local dns:53/udp web:80:8080").unwrap().into(),
            unhealthy: true,
            exclusive: true,
            since: 1_700_000_000_123,
        };
        let text = write_record(&Record { id: "0123456789ab".into(), ..record.clone() });
        assert!(!text.contains('/') && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        assert_eq!(read_record("h", &text), Some(record));
    }
}
