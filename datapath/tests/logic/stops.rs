//! A container that is about to be stopped: no host sends it new connections by the time that it is told.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use selvedge_cluster::store::memory::Memory;
use selvedge_fake::log::Log;
use selvedge_fake::paths::{Paths, among_hosts, behind, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::vips::{address, begun, with_vips};

const CONTAINER: [u8; 4] = [10, 32, 0, 1];
const LONG: Duration = Duration::from_secs(70);

/// A host at 127.0.0.3 that reads letters.
async fn reader(registry: &Memory) -> (Paths, u16) {
    let listener = TcpListener::bind("127.0.0.3:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut settings = with_vips("b", 3, registry);
    settings.cluster.peer_port = port;
    let host = Paths::new(settings).await;
    host.keep();
    host.all_seen().await;
    let datapath = Arc::clone(&host.datapath);
    tokio::spawn(async move { datapath.answer_peers(listener).await });
    (host, port)
}

/// A container of host `a` stands behind a virtual address, and host `b` knows it.
struct Scene {
    a: Paths,
    b: Paths,
    /// Where `b` reads letters.
    port: u16,
    vip: Ipv4Addr,
}

async fn scene() -> Scene {
    let registry = Memory::default();
    let a = begun("a", 2, &registry).await;
    let (b, port) = reader(&registry).await;
    a.runs(&behind("1", CONTAINER, "db1", "db:5432"));
    until("a name", || address(&b, "db.vip").is_some()).await;
    let vip = address(&b, "db.vip").unwrap();
    Scene { a, b, port, vip }
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_until_other_hosts_send_it_nothing_new() {
    among_hosts(async {
        let Scene { a, b, vip, .. } = scene().await;
        assert_eq!(b.kernel.backends(vip), [Ipv4Addr::from(CONTAINER)]);
        let began = Instant::now();
        // Its id, as the engine has it.
        a.datapath.lead_elsewhere("000000000001", LONG).await;
        assert!(b.kernel.backends(vip).is_empty());
        assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
        tokio::time::sleep(LONG - Duration::from_secs(5)).await;
        assert!(b.kernel.backends(vip).is_empty(), "whatever its record says");
        until("it takes connections again", || !b.kernel.backends(vip).is_empty()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_kernel_refuses_has_not_confirmed() {
    among_hosts(async {
        let Scene { a, b, vip, .. } = scene().await;
        let log = Log::listen();
        b.kernel.refuse("apply vips");
        let began = Instant::now();
        a.datapath.lead_elsewhere("000000000001", LONG).await;
        assert!(began.elapsed() >= Duration::from_secs(2) && began.elapsed() < Duration::from_secs(3));
        assert!(log.lines().iter().any(|line| line.message.starts_with("does not say that it sends no new")));
        b.kernel.agree("apply vips");
        until("later all the same", || b.kernel.backends(vip).is_empty()).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_without_others_waits_for_its_own_kernel_alone() {
    among_hosts(async {
        let a = begun("a", 2, &Memory::default()).await;
        a.runs(&behind("1", CONTAINER, "db1", "db:5432"));
        until("a name", || address(&a, "db.vip").is_some()).await;
        let before = a.kernel.times("apply vips");
        a.datapath.lead_elsewhere("000000000001", LONG).await;
        assert_eq!(a.kernel.times("apply vips"), before + 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_letter_of_an_unknown_sender_changes_nothing() {
    among_hosts(async {
        let Scene { a: _a, b, port, vip } = scene().await;
        for letter in ["selvedge aside 1\n000000000001 70\n", "", "GET / HTTP/1.1\r\n"] {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.3", port)).await.unwrap();
            // It may have hung up by now.
            let _ = stream.write_all(letter.as_bytes()).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            assert!(answer.is_empty());
        }
        assert_eq!(b.kernel.backends(vip), [Ipv4Addr::from(CONTAINER)]);
    })
    .await;
}
