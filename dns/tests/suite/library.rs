//! What hickory-resolver and hickory-server do where the ways of `selvedge_dns` are its own: the reason why they are.
//!
//! A test that fails after an update of theirs says that a part of ours can go.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hickory_proto::op::{Header, Message, Metadata, ResponseCode};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::Server;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::support::{Manner, Upstream, query, receive, send};

/// What the resolver makes of a name, with servers in this order; so many are asked at once.
fn resolved(servers: &[&Upstream], at_once: usize) -> Result<String, String> {
    let server = |upstream: &&Upstream| {
        let SocketAddr::V4(address) = upstream.address else { panic!("IPv4 alone") };
        let mut connection = ConnectionConfig::udp();
        connection.port = address.port();
        // As resolv.conf(5) has it: another server may know the name.
        NameServerConfig::new((*address.ip()).into(), false, vec![connection])
    };
    let config = ResolverConfig::from_parts(None, vec![], servers.iter().map(server).collect());
    let mut options = ResolverOpts::default();
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.num_concurrent_reqs = at_once;
    (options.timeout, options.attempts) = (Duration::from_millis(900), 1);
    let provider = TokioRuntimeProvider::default();
    let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async { builder.build().unwrap().ipv4_lookup("one.test.").await });
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.answers().iter().map(|record| record.data.to_string()).collect())
}

fn upstream(label: &'static str, last: u8) -> Upstream {
    Upstream::with(Manner { label: Some(label), last: Some(last), ttl: None })
}

#[test]
fn the_resolver_either_fails_with_a_dead_server_or_lets_a_quick_one_win_over_an_earlier_one() {
    let (slow, quick) = (upstream("slow", 1), upstream("right", 2));
    assert_eq!(resolved(&[&slow, &quick], 1).as_deref(), Ok("192.0.2.1"), "the order of the list");
    // One after the other: the dead one has all of the time.
    assert!(resolved(&[&upstream("silent", 1), &quick], 1).is_err());
    // At once: the first answer wins.
    assert_eq!(resolved(&[&slow, &quick], 2).as_deref(), Ok("192.0.2.2"), "the second server's address");
    assert!(resolved(&[&slow, &upstream("nodata", 0)], 2).is_err(), "the second server's denial");
}

/// Answers each question with NXDOMAIN, those for `slow` after a while.
struct Slow;

#[async_trait::async_trait]
impl RequestHandler for Slow {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut to: R,
    ) -> ResponseInfo {
        let info = request.request_info().unwrap();
        if info.query.name().to_string().starts_with("slow") {
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        let mut metadata = Metadata::response_from_request(info.metadata);
        metadata.response_code = ResponseCode::NXDomain;
        let response = MessageResponseBuilder::from_message_request(request);
        let sent = to.send_response(response.build_no_records(metadata)).await;
        sent.unwrap_or_else(|_| ResponseInfo::from(Header { metadata, counts: Default::default() }))
    }
}

/// Which of two questions on one connection is answered first.
fn first_answered(server: SocketAddr) -> u16 {
    let mut client = TcpStream::connect(server).unwrap();
    send(&mut client, &query(1, "slow.test"));
    send(&mut client, &query(2, "quick.test"));
    client.flush().unwrap();
    let first = Message::from_vec(&receive(&mut client).unwrap()).unwrap();
    first.metadata.id
}

#[test]
fn the_server_lets_a_question_wait_for_another_one_on_the_same_connection() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut server = Server::new(Slow);
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            server.register_listener(listener, Duration::from_secs(5), 32);
            server.block_until_done().await
        })
    });
    let start = Instant::now();
    assert_eq!(first_answered(address), 1, "RFC 7766 section 6.2.1.1 has it otherwise");
    assert!(start.elapsed() >= Duration::from_millis(700));
}
