//! Lists that are longer than one message of the kernel's, read by many at once over the same socket.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;

use crate::lab::{on_a_host, ready_network};

/// A host with as many addresses and routes as a large one has.
fn crowd() {
    let address = |n: u32| format!("address add 192.0.{}.{}/32 dev lo\n", n / 250, n % 250 + 1);
    let route = |n: u32| format!("route add 198.18.{}.{}/32 dev lo\n", n / 250, n % 250 + 1);
    let lines: String = (0..1000).flat_map(|n| [address(n), route(n)]).collect();
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success());
}

#[test]
fn they_are_read_one_after_the_other_also_when_a_reader_stops_waiting() {
    on_a_host(|| async {
        let network = ready_network().await;
        crowd();
        for _ in 0..10 {
            let given_up = (0..3).map(|n| tokio::time::timeout(Duration::from_micros(n), network.wires()));
            join_all(given_up).await;
            let addresses = join_all((0..10).map(|_| network.mind_host()));
            let routes = join_all((0..10).map(|_| network.foreign_addresses()));
            let links = join_all((0..10).map(|_| network.wires()));
            let (addresses, routes, links) = tokio::join!(addresses, routes, links);
            assert!(addresses.iter().all(|changes| matches!(changes, Ok(0))), "{addresses:?}");
            assert!(routes.iter().all(|found| matches!(found.as_deref(), Ok([]))), "{routes:?}");
            assert!(links.iter().all(|found| matches!(found.as_deref(), Ok([]))), "{links:?}");
        }
    });
}
