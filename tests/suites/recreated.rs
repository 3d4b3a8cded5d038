//! Containers made afresh from their own inspect, as Watchtower and Portainer do it: again and again the same as with the
//! engine alone, and answering to their own names only.

use std::path::Path;
use std::sync::OnceLock;

use selvedge_tests::compare::normalised;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::http;
use selvedge_tests::selvedge::Selvedge;
use serde_json::{Map, Value, json};

struct Scene {
    host: Host,
    engine: Engine,
    selvedge: Selvedge,
}

impl Scene {
    fn of(make: impl FnOnce(&Host) -> Engine) -> Self {
        let host = Host::new();
        let engine = make(&host);
        let selvedge = Selvedge::start(&host, &engine, &[]);
        Self { host, engine, selvedge }
    }

    /// The machine's engine, trixie's, and sid's with the containerd image store.
    fn all() -> [&'static Self; 3] {
        static DEBIAN: OnceLock<Scene> = OnceLock::new();
        static TRIXIE: OnceLock<Scene> = OnceLock::new();
        static SID: OnceLock<Scene> = OnceLock::new();
        [
            DEBIAN.get_or_init(|| Self::of(|host| Engine::debian(host, &[]))),
            TRIXIE.get_or_init(|| Self::of(|host| Engine::trixie(host, &[]))),
            SID.get_or_init(|| Self::of(|host| Engine::sid(host, &[]))),
        ]
    }
}

fn ask(socket: &Path, method: &str, path: &str, body: &Value) -> Value {
    let answer = match method {
        "GET" => http::get(socket, path),
        "DELETE" => http::send(
            socket,
            format!("DELETE {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").as_bytes(),
        ),
        _ => http::post(socket, path, &body.to_string()),
    };
    let answer = answer.expect("an answer");
    let text = answer.text();
    assert!(answer.status < 300 || answer.status == 304, "{method} {path} {body}: {text}");
    serde_json::from_str(&text).unwrap_or_default()
}

fn inspect(socket: &Path, name: &str) -> Value {
    ask(socket, "GET", &format!("/containers/{name}/json"), &Value::Null)
}

/// The body of a create as those programs make it: `Config`, `HostConfig`, and the endpoints as inspect shows them.
fn again(seen: &Value) -> Value {
    let mut body = seen["Config"].clone();
    body["HostConfig"] = seen["HostConfig"].clone();
    body["NetworkingConfig"] = json!({"EndpointsConfig": seen["NetworkSettings"]["Networks"]});
    body
}

fn make(socket: &Path, name: &str, body: &Value) {
    ask(socket, "POST", &format!("/containers/create?name={name}"), body);
    ask(socket, "POST", &format!("/containers/{name}/start"), &json!({}));
}

fn remove(socket: &Path, name: &str) {
    ask(socket, "DELETE", &format!("/containers/{name}?force=1"), &Value::Null);
}

/// What must be the same on both sides: all but the moment and the addresses.
fn kept(seen: &Value) -> String {
    let pick = |keys: &[&str]| -> Map<String, Value> {
        keys.iter().map(|key| ((*key).to_owned(), seen[*key].clone())).collect()
    };
    let mut kept = pick(&["Name", "Path", "Args", "Config", "HostConfig", "Mounts", "Image"]);
    let mut networks = seen["NetworkSettings"]["Networks"].clone();
    for network in networks.as_object_mut().into_iter().flat_map(Map::values_mut) {
        for key in ["IPAddress", "IPPrefixLen", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "Gateway"] {
            network[key] = Value::Null;
        }
    }
    kept.insert("Networks".to_owned(), networks);
    let text = normalised(&serde_json::to_string_pretty(&Value::Object(kept)).expect("JSON"));
    text.split('"').map(|word| if is_engines_mac(word) { "MAC" } else { word }).collect::<Vec<_>>().join("\"")
}

/// One that the engine chose, by the address or by chance.
fn is_engines_mac(word: &str) -> bool {
    word.len() == 17 && word.split(':').count() == 6 && word != WISHED_MAC
}

const WISHED_MAC: &str = "02:42:c0:00:02:09";

fn bodies(side: &str) -> Vec<(&'static str, Value)> {
    let sleep = |more: Value| {
        let mut body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "StopSignal": "KILL"});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        body
    };
    vec![
        ("plain", sleep(json!({}))),
        ("empty", sleep(json!({"HostConfig": {}}))),
        ("mac", sleep(json!({"MacAddress": WISHED_MAC, "HostConfig": {}}))),
        (
            "names",
            sleep(json!({
                "Hostname": "mail", "Domainname": "example.org", "Labels": {"a": "b"}, "Env": ["A=b"],
                "HostConfig": {"ExtraHosts": ["there:192.0.2.1"]}
            })),
        ),
        (
            "dns",
            sleep(json!({"HostConfig": {
                "Dns": ["192.0.2.53"], "DnsSearch": ["example.org"], "Mounts": [{"Type": "tmpfs", "Target": "/t"}]
            }})),
        ),
        ("links", sleep(json!({"HostConfig": {"Links": [format!("{side}-other:db")]}}))),
    ]
}

/// Three times in a row, then once more under another name beside it. `side` begins all names.
fn round(socket: &Path, side: &str, body: &Value) -> Vec<String> {
    let [app, old, copy] = ["app", "old", "copy"].map(|name| format!("{side}-{name}"));
    let look = |name: &str| kept(&inspect(socket, name)).replace(&format!("{side}-"), "SIDE-");
    make(socket, &app, body);
    let mut seen = vec![look(&app)];
    for _ in 0..3 {
        let next = again(&inspect(socket, &app));
        remove(socket, &app);
        make(socket, &app, &next);
        seen.push(look(&app));
    }
    ask(socket, "POST", &format!("/containers/{app}/rename?name={old}"), &json!({}));
    let next = again(&inspect(socket, &old));
    make(socket, &copy, &next);
    seen.push(look(&copy));
    [copy, old].iter().for_each(|name| remove(socket, name));
    seen
}

/// All of them, on one side.
fn rounds(socket: &Path, side: &str) -> Vec<Vec<String>> {
    let other = format!("{side}-other");
    make(socket, &other, &json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
    bodies(side).iter().map(|(_, body)| round(socket, side, body)).collect()
}

#[test]
fn a_container_made_again_from_its_inspect_is_as_with_the_engine_alone() {
    let compare = |scene: &Scene| {
        let (direct, through) = std::thread::scope(|scope| {
            let direct = scope.spawn(|| rounds(&scene.engine.socket, "xd"));
            let through = rounds(&scene.selvedge.socket(), "xt");
            (direct.join().expect("no panic"), through)
        });
        for (((told, _), direct), through) in bodies("").iter().zip(&direct).zip(&through) {
            for (number, (direct, through)) in direct.iter().zip(through).enumerate() {
                let differ: Vec<_> = direct.lines().zip(through.lines()).filter(|(a, b)| a != b).collect();
                assert!(direct == through, "{told}, inspect {number}: {differ:#?}\n{direct}\n{through}");
            }
        }
    };
    std::thread::scope(|scope| {
        for scene in Scene::all() {
            scope.spawn(move || compare(scene));
        }
    });
}

#[test]
fn a_copy_answers_to_its_own_names_only() {
    for scene in Scene::all() {
        let socket = scene.selvedge.socket();
        make(&socket, "first", &json!({"Image": "busybox", "Cmd": ["sleep", "1000"]}));
        let seen = inspect(&socket, "first");
        let short = seen["Id"].as_str().expect("an id")[..12].to_owned();
        assert_eq!(seen["Config"]["Hostname"], short.as_str(), "what the engine alone would show");
        make(&socket, "second", &again(&seen));
        let own = |name: &str| vec![scene.selvedge.docker().address(name)];
        assert_eq!(scene.host.resolve("first"), own("first"));
        assert_eq!(scene.host.resolve("second"), own("second"));
        assert!(scene.host.resolve(&short).is_empty(), "nobody is called {short}");
        ["first", "second"].iter().for_each(|name| remove(&socket, name));
    }
}

#[test]
fn a_fixed_address_is_taken_at_start_so_that_the_new_one_can_be_made_first() {
    for scene in Scene::all() {
        let socket = scene.selvedge.socket();
        let fixed =
            json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "Labels": {"selvedge.ip": "10.32.0.77"}});
        make(&socket, "before", &fixed);
        ask(&socket, "POST", "/containers/create?name=after", &again(&inspect(&socket, "before")));
        let refused = http::post(&socket, "/containers/after/start", "").expect("an answer");
        assert_eq!(refused.status, 409, "{}", refused.text());
        assert!(refused.text().contains("10.32.0.77"), "{}", refused.text());
        remove(&socket, "before");
        ask(&socket, "POST", "/containers/after/start", &json!({}));
        assert_eq!(scene.selvedge.docker().address("after"), "10.32.0.77");
        remove(&socket, "after");
    }
}
