//! What an asker hears besides the answer.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as HickoryQuery, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{Name as HickoryName, RecordType};
use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;

use super::*;
use crate::options::EXTENDED_ERROR;

fn two_tenants() -> Table {
    let mut table = Table::new(Name::parse("selvedge.internal").unwrap());
    table.set_isolated(true);
    for (last, name, tenant) in [(1, "mine", "shop"), (2, "vault", "bank")] {
        let address = Ipv4Addr::new(10, 32, 0, last);
        let mut record = Record::new(name, address, vec![Name::parse(name).unwrap()]);
        record.traits.tenant = Some(tenant.into());
        table.put(record);
    }
    table
}

/// The code of the answer to 10.32.0.1, and that of its explanation.
fn heard(name: &str, speaks_edns: bool) -> (ResponseCode, Option<u16>) {
    let table = two_tenants();
    let listen = "169.254.1.1:53".parse().unwrap();
    let settings =
        Settings::new(TableWriter::new(two_tenants()).reader(), listen, "10.32.0.0/12".parse().unwrap());
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    let name = HickoryName::from_ascii(format!("{name}.selvedge.internal.")).unwrap();
    query.add_query(HickoryQuery::query(name, RecordType::A));
    if speaks_edns {
        query.set_edns(Edns::new());
    }
    let (handler, mut out) = (Handler::new(&settings, Arc::default()), Vec::new());
    let asker = (IpAddr::from([10, 32, 0, 1]), Transport::Udp);
    assert!(matches!(handler.handle(&table, &query.to_vec().unwrap(), asker, &mut out), Outcome::Reply));
    let answer = Message::from_vec(&out).unwrap();
    let why = answer.edns.as_ref().and_then(|edns| edns.option(EdnsCode::from(EXTENDED_ERROR)));
    let why = why.map(|why| Vec::<u8>::try_from(why).unwrap());
    (answer.metadata.response_code, why.map(|why| u16::from_be_bytes([why[0], why[1]])))
}

#[test]
fn a_name_that_another_tenant_has_is_told_as_prohibited() {
    assert_eq!(heard("mine", true), (ResponseCode::NoError, None));
    assert_eq!(heard("vault", true), (ResponseCode::NXDomain, Some(18)));
    assert_eq!(heard("vault", false), (ResponseCode::NXDomain, None));
    assert_eq!(heard("nope", true), (ResponseCode::NXDomain, None));
}
