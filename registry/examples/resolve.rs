//! The table of names, without any network: who has a name, and what an unknown name means.
//!
//! `cargo run -p selvedge-registry --example resolve web.selvedge.internal example.org`
//! Must never do more than show how the table is read.

use std::net::Ipv4Addr;

use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::table::Table;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut table = Table::new(Name::parse("selvedge.internal")?);
    for (id, address) in [("one", Ipv4Addr::new(10, 32, 0, 1)), ("two", Ipv4Addr::new(10, 32, 0, 2))] {
        let refused = table.put(Record::new(id, address, vec![Name::parse("web")?, Name::parse(id)?]));
        assert!(refused.is_empty(), "both names are free");
    }
    for text in std::env::args().skip(1) {
        println!("{text}: {:?}", table.lookup(Name::parse(&text)?.into_absolute().wire()));
    }
    println!("10.32.0.1 is {:?}", table.reverse(Ipv4Addr::new(10, 32, 0, 1)).map(|name| name.to_string()));
    Ok(())
}
