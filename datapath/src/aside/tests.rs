//! Telling hosts of a container that stands aside: what they say, and how long they are waited for.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use selvedge_cluster::key::HostInfo;
use tokio::io::{DuplexStream, duplex};

use super::*;

const LONG: Duration = Duration::from_secs(70);

/// What a host does with the n-th connection; how long telling it took, and what came of it.
async fn told<F>(host: impl Fn(u32, DuplexStream) -> F) -> (Duration, Result<(), io::ErrorKind>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (began, count) = (Instant::now(), AtomicU32::new(0));
    let connect = || {
        let (ours, theirs) = duplex(1024);
        tokio::spawn(host(count.fetch_add(1, Relaxed), theirs));
        std::future::ready(io::Result::Ok(ours))
    };
    let outcome = confirmed(&Aside::new("db", LONG).text(), began + PATIENCE, connect).await;
    (began.elapsed(), outcome.map_err(|error| error.kind()))
}

/// A host whose rules are in force after this time.
async fn good(after: Duration, mut stream: DuplexStream) {
    let text = letter::read(&mut stream).await.unwrap();
    assert_eq!(Aside::parse(&text), Some(Aside::new("db", LONG)));
    tokio::time::sleep(after).await;
    confirm(&mut stream).await.unwrap();
}

#[test]
fn a_letter_is_read_as_it_was_written_and_garbage_is_none() {
    let aside = Aside::new("0123456789abcdef", LONG);
    assert_eq!(aside.text(), "selvedge aside 1\n0123456789ab 70\n");
    assert_eq!(Aside::parse(&aside.text()), Some(aside));
    for odd in ["", "db 70", "selvedge aside 2\ndb 70\n", "selvedge refused 1\n"] {
        assert_eq!(Aside::parse(odd), None, "{odd}");
    }
    for odd in ["", "db", "d/b 70", "db -1", "db 99999999999", "0123456789abc 1"] {
        assert_eq!(Aside::parse(&format!("{HEAD}{odd}\n")), None, "{odd}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_waited_for_until_it_has_confirmed() {
    let (took, outcome) = told(|_, stream| good(Duration::from_millis(300), stream)).await;
    assert_eq!((took.as_millis(), outcome), (300, Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_is_given_up_after_two_seconds() {
    let (took, outcome) = told(|_, stream| good(Duration::from_secs(60), stream)).await;
    assert_eq!((took, outcome), (PATIENCE, Err(io::ErrorKind::TimedOut)));
}

#[tokio::test(start_paused = true)]
async fn the_next_worker_of_a_host_is_told_when_one_dies_with_the_letter() {
    let host = |nth, stream| async move {
        if nth >= 3 {
            good(Duration::ZERO, stream).await;
        }
    };
    let (took, outcome) = told(host).await;
    assert_eq!((took, outcome), (3 * AGAIN, Ok(())));
}

#[tokio::test(start_paused = true)]
async fn where_nothing_listens_nothing_is_waited_for() {
    let began = Instant::now();
    let refused = || std::future::ready(Err::<DuplexStream, _>(io::ErrorKind::ConnectionRefused.into()));
    let outcome = confirmed("", began + PATIENCE, refused).await;
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(began.elapsed(), Duration::ZERO);
    let silent = || std::future::pending::<io::Result<DuplexStream>>();
    let outcome = confirmed("", began + PATIENCE, silent).await;
    assert_eq!((outcome.unwrap_err().kind(), began.elapsed()), (io::ErrorKind::TimedOut, CONNECT));
}

#[test]
fn hosts_that_are_gone_or_of_an_earlier_version_are_not_told() {
    let peer = |name: &str, alive: bool, heeds_stops: bool| PeerView {
        name: name.to_owned(),
        alive,
        info: Some(HostInfo {
            address: [192, 0, 2, 1].into(),
            port: 6785,
            version: String::new(),
            datapath: String::new(),
            policy: String::new(),
            heeds_stops,
        }),
        ..PeerView::default()
    };
    let peers = [peer("a", true, true), peer("old", true, false), peer("gone", false, true)];
    assert_eq!(to_tell(&peers), [("a".to_owned(), ([192, 0, 2, 1], 6785).into())]);
}
