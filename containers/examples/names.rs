//! The DNS names that a container gets, by what is known of it.
//!
//! `cargo run -p selvedge-containers --example names /shop/db web_1`: a Marathon app, and a Compose service.
//! Must never ask an engine: names follow from words alone.

use selvedge_containers::names::{Sources, names};
use selvedge_registry::name::Name;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let domain = Name::parse("selvedge.internal")?;
    let sources = Sources {
        labels: &["db".to_owned()],
        marathon: arguments.first().map(String::as_str),
        nomad: None,
        compose: arguments.get(1).map(String::as_str),
        hostname: Some("db7"),
        domain: &domain,
    };
    names(&sources).iter().for_each(|name| println!("{name}.{domain}"));
    Ok(())
}
