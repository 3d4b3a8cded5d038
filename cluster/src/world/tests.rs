//! Tests of what is known of the others. Must never need a registry.

use std::sync::Arc;

use selvedge_registry::name::Name;
use selvedge_registry::record::Record;
use selvedge_registry::shared::TableWriter;
use selvedge_registry::table::{Found, Table};

use super::*;

const INFO: &str = r#"{"address":"192.168.1.2","port":6785,"version":"1","datapath":"auto"}"#;

struct Scene {
    world: World,
    table: Arc<TableWriter>,
}

struct AtOnce(Arc<TableWriter>);

impl Others for AtOnce {
    fn put(&mut self, record: Record) {
        let _ = self.0.write().put(record);
    }

    fn remove(&mut self, id: &str) {
        self.0.write().remove(id);
    }
}

impl Scene {
    fn new() -> Self {
        let table = Arc::new(TableWriter::new(Table::new(Name::parse("d").unwrap())));
        Self { world: World::new("me", Box::new(AtOnce(Arc::clone(&table)))), table }
    }

    /// All that the registry holds, by the epoch and further keys.
    fn all(&mut self, epoch: &str, keys: &[(&str, &str)]) {
        let settings = format!(r#"{{"pool":"10.32.0.0/12","block_size":24,"epoch":"{epoch}"}}"#);
        let mut all = vec![("settings".to_owned(), settings)];
        all.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.world.take(News::All(all));
    }

    fn put(&mut self, key: &str) {
        self.world.take(News::Put(key.to_owned(), String::new()));
    }

    fn gone(&mut self, key: &str) {
        self.world.take(News::Gone(key.to_owned()));
    }

    fn knows(&self, name: &str) -> bool {
        let name = Name::parse(&format!("{name}.d.")).unwrap();
        matches!(self.table.reader().read().lookup(name.wire()), Found::Addresses(_))
    }

    fn peer(&self) -> Option<PeerView> {
        self.world.view().peers.into_iter().find(|peer| peer.name == "h")
    }
}

const HOST: (&str, &str) = ("hosts/h", INFO);
const LIVE: (&str, &str) = ("live/h,1", "");
const BLOCK: (&str, &str) = ("blocks/10.32.5.0-24", "h");
const DB: (&str, &str) = ("names/h/0123456789ab;a=10.32.5.7;n=db", "");

#[test]
fn a_dead_host_without_containers_keeps_its_block_and_its_route() {
    let mut scene = Scene::new();
    for _ in 0..2 {
        scene.all("1", &[HOST, BLOCK]);
        let peer = scene.peer().expect("it is known");
        assert!(!peer.alive && peer.info.is_some());
        assert_eq!(peer.blocks, ["10.32.5.0/24".parse().unwrap()]);
    }
    scene.all("1", &[]);
    assert!(scene.peer().is_none(), "forgotten while we were away");
}

#[test]
fn a_registry_that_lost_its_data_takes_no_name_and_no_block() {
    let mut scene = Scene::new();
    scene.all("1", &[HOST, LIVE, BLOCK, DB]);
    assert!(scene.knows("db"));
    scene.all("2", &[]);
    assert!(scene.knows("db"));
    assert_eq!(scene.world.owner_of("10.32.5.9".parse().unwrap()), Some("h"));
    // It comes back with less: a container has ended, and the block is not its own any more.
    scene.world.take(News::Put("hosts/h".to_owned(), INFO.to_owned()));
    scene.put("live/h,2");
    assert!(!scene.knows("db"));
    assert_eq!(scene.world.owner_of("10.32.5.9".parse().unwrap()), None);
}

#[test]
fn a_host_that_says_nothing_is_asked_twice_before_its_names_go() {
    let mut scene = Scene::new();
    scene.all("1", &[HOST, LIVE, BLOCK, DB]);
    assert!(!scene.world.asked("h", false, false), "the registry holds it for alive");
    scene.gone("live/h,1");
    assert!(scene.knows("db"));
    scene.world.asked("h", false, false);
    assert!(scene.knows("db"), "once is no proof");
    assert!(scene.world.asked("h", false, false));
    assert!(!scene.knows("db"));
    assert!(scene.world.asked("h", true, false), "it answers again");
    assert!(scene.knows("db"));
}

#[test]
fn cut_off_from_the_registry_only_who_ever_answered_is_judged_by_his_silence() {
    let mut scene = Scene::new();
    scene.all("1", &[HOST, LIVE, BLOCK, DB]);
    for _ in 0..5 {
        scene.world.asked("h", false, true);
    }
    assert!(scene.knows("db"), "a firewall may hide it");
    scene.world.asked("h", true, false);
    for _ in 0..5 {
        scene.world.asked("h", false, true);
    }
    assert!(!scene.knows("db"));
    scene.all("1", &[HOST, LIVE, BLOCK, DB]);
    assert!(scene.knows("db"), "the registry is back and holds it for alive");
}

#[test]
fn an_address_outside_of_the_hosts_blocks_has_a_route_of_its_own_until_a_block_holds_it() {
    let mut scene = Scene::new();
    scene.all("1", &[HOST, LIVE, BLOCK, ("names/h/aaaaaaaaaaaa;a=10.44.0.7;n=x", "")]);
    assert_eq!(scene.peer().unwrap().strays, [std::net::Ipv4Addr::new(10, 44, 0, 7)]);
    scene.world.take(News::Put("blocks/10.44.0.0-24".to_owned(), "h".to_owned()));
    assert!(scene.peer().unwrap().strays.is_empty());
    scene.world.take(News::Put("blocks/10.44.0.0-24".to_owned(), "other".to_owned()));
    assert_eq!(scene.peer().unwrap().strays.len(), 1);
    scene.gone("names/h/aaaaaaaaaaaa;a=10.44.0.7;n=x");
    assert!(scene.peer().unwrap().strays.is_empty());
}

#[test]
fn what_is_dumped_is_what_another_worker_knows() {
    let mut scene = Scene::new();
    scene.all("1", &[HOST, LIVE, BLOCK, DB]);
    let mut next = Scene::new();
    next.world.take(News::All(scene.world.dump()));
    assert!(next.knows("db"));
    assert_eq!(next.peer().unwrap().blocks, scene.peer().unwrap().blocks);
    assert_eq!(next.world.settings, scene.world.settings);
}

#[test]
fn a_block_whose_key_is_deleted_stays_its_hosts_unless_the_host_gave_it_back_or_is_dead() {
    let mut scene = Scene::new();
    let owner = |scene: &Scene| scene.world.owner_of("10.32.5.9".parse().unwrap()).map(str::to_owned);
    scene.all("1", &[HOST, LIVE, BLOCK]);
    scene.gone(BLOCK.0);
    assert_eq!(owner(&scene).as_deref(), Some("h"), "somebody deleted it by hand");
    scene.world.take(News::Put(BLOCK.0.to_owned(), "h".to_owned()));
    scene.put(BLOCK.0);
    assert_eq!(owner(&scene), None, "given back");
    scene.gone(BLOCK.0);
    scene.world.take(News::Put(BLOCK.0.to_owned(), "h".to_owned()));
    scene.gone("live/h,1");
    scene.world.asked("h", false, false);
    scene.world.asked("h", false, false);
    scene.gone(BLOCK.0);
    assert_eq!(owner(&scene), None, "forgotten");
}
