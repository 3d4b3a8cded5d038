//! Tests of the cache's times and bounds.

use super::*;
use crate::forward::message::Shape;
use crate::query::{Edns, IN, WireName, kind};

fn query(number: u8) -> Query {
    let name = WireName::read(&[1, number, 0], 0).unwrap();
    Query { id: 1, flags: 0x0100, name, lower: name.lower(), kind: kind::A, class: IN, edns: None }
}

fn servers(last: u8) -> Arc<[SocketAddr]> {
    Arc::new([SocketAddr::from(([9, 9, 9, last], 53))])
}

/// An answer of one address that may be kept for so long.
fn received(query: &Query, ttl: u32, padding: usize) -> Rc<Received> {
    let mut bytes = vec![0, 1, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
    query.put_question(&mut bytes);
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(padding).unwrap().to_be_bytes());
    bytes.extend(vec![0; padding]);
    let shape = Shape::read(&mut bytes, query).unwrap();
    Rc::new(Received { bytes, shape })
}

#[test]
fn an_answer_lives_as_long_as_its_ttl() {
    let mut cache = Cache::new(10, 100_000);
    let (key, now) = (Key::new(&query(b'a'), servers(1)), Instant::now());
    cache.put(key.clone(), received(&query(b'a'), 5, 4), now);
    let kept = cache.get(&key, now + Duration::from_secs(4)).unwrap();
    assert_eq!((kept.since.as_secs(), kept.age), (4, Age::Fresh));
    let stale = cache.get(&key, now + Duration::from_secs(5)).unwrap();
    assert_eq!(stale.age, Age::Stale { in_vain: false });
    cache.in_vain(&key, now + Duration::from_secs(6));
    let age = |cache: &mut Cache, seconds| cache.get(&key, now + Duration::from_secs(seconds)).unwrap().age;
    assert_eq!(age(&mut cache, 35), Age::Stale { in_vain: true });
    assert_eq!(age(&mut cache, 36), Age::Stale { in_vain: false }, "the servers are to be asked again");
    assert!(cache.get(&key, now + Duration::from_secs(5) + STALE).is_none());
    assert_eq!((cache.entries.len(), cache.bytes), (0, 0));
    cache.put(key.clone(), received(&query(b'a'), 0, 4), now);
    assert!(cache.get(&key, now).is_none());
}

#[test]
fn an_answer_is_to_be_renewed_once_in_the_last_tenth_of_its_time() {
    let mut cache = Cache::new(10, 100_000);
    let (key, now) = (Key::new(&query(b'a'), servers(1)), Instant::now());
    cache.put(key.clone(), received(&query(b'a'), 100, 4), now);
    let mut age = |seconds| cache.get(&key, now + Duration::from_secs(seconds)).unwrap().age;
    assert_eq!([age(90), age(91), age(92)], [Age::Fresh, Age::Due, Age::Fresh]);
}

#[test]
fn what_changes_the_answer_changes_the_key() {
    let key = Key::new(&query(b'a'), servers(1));
    assert_eq!(key, Key::new(&query(b'A'), servers(1)));
    assert_ne!(key, Key::new(&query(b'a'), servers(2)));
    assert_ne!(key, Key::new(&Query { kind: kind::AAAA, ..query(b'a') }, servers(1)));
    for flags in [0, 0x0110, 0x0120] {
        assert_ne!(key, Key::new(&Query { flags, ..query(b'a') }, servers(1)));
    }
    let edns = |dnssec_ok| {
        Key::new(
            &Query { edns: Some(Edns { size: 512, dnssec_ok, asks_server: false }), ..query(b'a') },
            servers(1),
        )
    };
    assert_ne!(key, edns(false));
    assert_ne!(edns(false), edns(true));
}

#[test]
fn the_oldest_go_first() {
    let mut cache = Cache::new(3, 1_000_000);
    let now = Instant::now();
    let key = |number| Key::new(&query(number), servers(1));
    for number in 0..10 {
        cache.put(key(number), received(&query(number), 60, 4), now);
    }
    assert_eq!(cache.entries.len(), 3);
    assert!(cache.get(&key(6), now).is_none() && cache.get(&key(7), now).is_some());
    for _ in 0..10 {
        cache.put(key(9), received(&query(9), 60, 4), now);
    }
    assert!(cache.oldest.len() <= 3 && cache.get(&key(9), now).is_some());
}

#[test]
fn bytes_are_bounded_too() {
    let mut cache = Cache::new(1000, 50_000);
    for number in 0..100 {
        let key = Key::new(&query(number), servers(1));
        cache.put(key, received(&query(number), 60, 2000), Instant::now());
        assert!(cache.bytes <= 50_000);
    }
    assert!(cache.entries.len() > 2);
    let sum: usize = cache.entries.values().map(|entry| entry.weight).sum();
    assert_eq!(sum, cache.bytes);
    cache.put(Key::new(&query(200), servers(1)), received(&query(200), 60, 20_000), Instant::now());
    assert_eq!(cache.bytes, sum, "one that is too large costs no other its place");
}
