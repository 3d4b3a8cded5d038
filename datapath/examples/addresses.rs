//! Takes addresses of a small block until none is left, and gives one back: next-fit, so that it rests before it is given
//! again.
//!
//! `cargo run -p selvedge-datapath --example addresses`
//! Must never touch the kernel: the book of addresses is plain data.

use selvedge_datapath::addresses::{Addresses, Wish};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let block = "10.32.0.0/29".parse()?;
    let addresses = Addresses::new("10.32.0.0/12".parse()?, 29, None);
    addresses.set_blocks(&[block], None);
    addresses.set_known();
    let mut create = 0;
    let mut first = None;
    let full = loop {
        create += 1;
        match addresses.take(Wish::Any, create) {
            Ok(address) => {
                println!("create {create} gets {address}");
                first.get_or_insert((address, create));
            }
            Err(error) => break error,
        }
    };
    println!("create {create}: {full}");
    let (address, number) = first.ok_or("a block has addresses")?;
    addresses.give_back(address, number);
    println!("{address} is free: create {create} gets {}", addresses.take(Wish::Any, create)?);
    Ok(())
}
