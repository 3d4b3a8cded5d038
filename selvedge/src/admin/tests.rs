//! What the admin socket answers, among a fake engine, a fake kernel and a registry in memory.

use http_body_util::BodyExt;
use hyper::Method;
use selvedge_cluster::store::memory::Memory;
use selvedge_containers::entry::Phase;
use selvedge_fake::lab::{Lab, behind, container};
use selvedge_fake::paths::{Paths, among_hosts, settings};
use serde_json::json;

use super::*;

struct Scene {
    lab: Lab,
    host: Paths,
}

impl Scene {
    async fn new() -> Self {
        Self { lab: Lab::new(), host: Paths::new(settings("a", 2, &Memory::default())).await }
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let domain = Name::parse("lab.internal").unwrap();
        let (containers, datapath) = (&self.lab.containers, &self.host.datapath);
        let desk = Desk { containers, datapath, domain: &domain };
        let status = async { Status { verdict: "OK".to_owned(), ..Status::default() } };
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let answer = answer(&desk, status, &request).await;
        assert_eq!(answer.headers()["content-type"], "application/json");
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path).await
    }
}

#[tokio::test(start_paused = true)]
async fn containers_are_listed_by_name_with_what_is_answered_for_them() {
    among_hosts(async {
        let scene = Scene::new().await;
        let book = &scene.lab.containers.book;
        let vip = ["db:5432".to_owned()];
        scene.lab.knows(behind("b-wired", 2, true, &vip)).await;
        scene.lab.knows(behind("c-leaves", 3, true, &vip)).await;
        scene.lab.knows(container("a-stopped", 4, false)).await;
        for id in ["b-wired", "c-leaves"] {
            book.set_phase(id, Phase::Wired);
            book.set_serving(id, &vip);
        }
        book.set_draining("c-leaves", Some(tokio::time::Instant::now() + QUESTION));
        publish::update(&scene.lab.containers, "a-stopped", |entry| entry.paused = true);
        scene.lab.engine.has(json!({
            "Id": "d-wireless", "Name": "/d-wireless", "State": {"Running": true}, "Mounts": [],
            "Config": {"Labels": {"selvedge.name": "d"}},
        }));
        let (status, shown) = scene.get("/containers").await;
        assert_eq!(status, StatusCode::OK);
        let of = |key: &str| shown.as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Value>();
        assert_eq!(of("name"), json!(["a-stopped", "b-wired", "c-leaves", "d-wireless"]));
        assert_eq!(of("state"), json!(["stopped", "wired", "wired", "no wire"]));
        assert_eq!(of("address"), json!(["10.32.0.4", "10.32.0.2", "10.32.0.3", "-"]));
        assert_eq!(of("healthy"), json!([false, true, true, true]));
        assert_eq!(of("serving"), json!([[], ["db:5432"], [], []]), "none that is about to be stopped");
        assert_eq!(of("draining"), json!([false, false, true, false]));
        assert_eq!(shown[1]["names"], json!(["b-wired.lab.internal"]));
        assert_eq!(shown[1]["tenant"], DEFAULT_TENANT);
        assert!(shown[3]["reason"].as_str().unwrap().contains("not made through Selvedge"), "{}", shown[3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_plan_is_that_of_rules_virtual_addresses_and_routes() {
    among_hosts(async {
        let mut of = settings("a", 2, &Memory::default());
        of.rules.by_tenant = true;
        of.vips = Some("10.47.0.0/16".parse().unwrap());
        let scene = Scene { lab: Lab::new(), host: Paths::new(of).await };
        let (status, why) = scene.get("/network").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why["message"].as_str().unwrap().contains("registry"), "{why}");
        scene.host.datapath.first_look(QUESTION).await;
        assert_eq!(scene.get("/network").await, (StatusCode::OK, json!(["nft add rule", "nft add element"])));
        scene.host.kernel.refuse("plan vips");
        let (status, why) = scene.get("/network").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why["message"].as_str().unwrap().contains("plan vips"), "{why}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_host_is_forgotten_by_its_name_and_only_when_that_is_asked() {
    among_hosts(async {
        let scene = Scene::new().await;
        scene.host.datapath.first_look(QUESTION).await;
        let (status, why) = scene.get("/hosts/b").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why["message"].as_str().unwrap().contains("only be forgotten"), "{why}");
        let (status, why) = scene.ask(Method::DELETE, "/hosts/b").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why["message"].as_str().unwrap().contains("no host b"), "{why}");
        let (status, why) = scene.ask(Method::DELETE, "/hosts/a").await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert!(why["message"].as_str().unwrap().contains("is this host"), "{why}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_status_is_given_as_it_is_and_unknown_pages_are_named_so() {
    among_hosts(async {
        let scene = Scene::new().await;
        let (status, shown) = scene.get("/status").await;
        assert_eq!((status, &shown["verdict"]), (StatusCode::OK, &json!("OK")));
        let (status, why) = scene.get("/else").await;
        assert_eq!((status, &why["message"]), (StatusCode::NOT_FOUND, &json!("selvedge: no such page")));
    })
    .await;
}
