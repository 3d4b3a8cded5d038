//! `--wire-user-networks`: containers on networks of their user's, such as a Compose project's, have a wire and names beside
//! that network, which goes on as without us.

use std::time::Duration;

use selvedge_tests::Lab;
use selvedge_tests::docker::Docker;
use selvedge_tests::engine::Engine;
use selvedge_tests::host::Host;
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::wait::until_true;

const FILE: &str = "\
services:
  web:
    image: busybox
    command: sh -c 'echo web >/tmp/page; exec httpd -f -p 8080 -h /tmp'
    ports: ['18080:8080']
  db:
    image: busybox
    command: sh -c 'echo db >/tmp/page; exec httpd -f -p 8080 -h /tmp'
    networks: [default, back]
  lone:
    image: busybox
    command: sleep 1000
    networks: [back]
networks:
  back:
    internal: true
";

/// An engine of today, whose Compose is the real one.
struct Project {
    selvedge: Selvedge,
    engine: Engine,
    host: Host,
    file: String,
}

impl Project {
    fn new(options: &[&str]) -> Self {
        let host = Host::new();
        let engine = Engine::trixie(&host, &[]);
        let selvedge = Selvedge::start(&host, &engine, options);
        let file = host.path("compose.yaml");
        std::fs::write(&file, FILE).expect("a file can be made");
        Self { selvedge, engine, file: file.display().to_string(), host }
    }

    fn docker(&self) -> Docker {
        self.engine.docker_at(&self.selvedge.socket())
    }

    fn compose(&self, arguments: &[&str]) -> String {
        let docker = self.docker();
        let told = docker.run(&[&["compose", "-f", &self.file, "-p", "shop"], arguments].concat());
        assert_eq!(told.code, 0, "{arguments:?}: {}{}", told.stdout, told.stderr);
        format!("{}{}", told.stdout, told.stderr)
    }

    /// What a program in a service's container says.
    fn within(&self, service: &str, line: &str) -> String {
        let told = self.docker().run(&["exec", &format!("shop-{service}-1"), "sh", "-c", line]);
        told.stdout.trim().to_owned()
    }
}

#[test]
fn a_compose_project_has_wires_names_and_a_tenant_beside_its_network() {
    let project = Project::new(&["--wire-user-networks", "--policy", "tenant"]);
    project.compose(&["up", "-d"]);
    let docker = project.docker();
    for service in ["web", "db", "lone"] {
        let shown = project.selvedge.shown(&format!("shop-{service}-1")).expect("it is shown");
        assert_eq!((&shown["tenant"], &shown["state"]), (&"shop".into(), &"wired".into()), "{shown}");
        assert_eq!(project.host.resolve(service), [shown["address"].as_str().expect("an address")]);
        assert_eq!(project.host.resolve(&format!("shop-{service}-1")).len(), 1);
    }

    // The project's own network is as without us: names by the engine's DNS, addresses, hosts, the way out, ports.
    assert_eq!(project.within("web", "wget -qO- http://db:8080/page"), "db");
    assert!(project.within("web", "nslookup db 127.0.0.11").contains("Address: 172."));
    let engines =
        docker.inspect("shop-db-1")["NetworkSettings"]["Networks"]["shop_default"]["IPAddress"].clone();
    assert!(engines.as_str().is_some_and(|address| address.starts_with("172.")), "{engines}");
    let routes = project.within("web", "ip route");
    assert!(
        routes.contains("default via 172.") && routes.contains("10.32.0.0/12 via 169.254.1.1"),
        "{routes}"
    );
    let own = project.within("web", "grep \"$(hostname)\" /etc/hosts | head -n 1");
    assert!(own.starts_with("172."), "{own}");
    assert_eq!(project.host.sh("busybox wget -qO- http://127.0.0.1:18080/page").stdout, "web\n");

    // And ours are there too, by way of the engine's DNS.
    assert_eq!(project.within("web", "wget -qO- http://db.selvedge.internal:8080/page"), "db");
    assert!(project.within("web", "nslookup db.selvedge.internal").contains("10.32."));
    assert_eq!(project.within("web", "cat /etc/resolv.conf | grep ^nameserver"), "nameserver 127.0.0.11");

    // Others see what the policy lets them see.
    let asks = |tenant: &str| {
        let label = format!("selvedge.tenant={tenant}");
        let url = "http://db.selvedge.internal:8080/page";
        docker
            .run(&["run", "--rm", "--label", &label, "busybox", "wget", "-qO-", url])
            .stdout
            .trim()
            .to_owned()
    };
    assert_eq!((asks("shop").as_str(), asks("bank").as_str()), ("db", ""));

    // A later worker, a second `up`, a container that Compose recreates, and the end.
    project.selvedge.kill_worker();
    let again = project.compose(&["up", "-d"]);
    assert!(again.contains("Running") && !again.contains("Recreate"), "{again}");
    project.compose(&["up", "-d", "--force-recreate", "db"]);
    assert_eq!(asks("shop"), "db");
    project.compose(&["down", "-t", "1"]);
    until_true("no wire is left", Duration::from_secs(10), || project.host.wires().is_empty());
    assert!(project.host.resolve("db").is_empty());
}

#[test]
fn without_it_ps_and_the_log_say_why_a_service_has_no_wire() {
    let project = Project::new(&[]);
    project.compose(&["up", "-d", "web", "lone"]);
    for (service, network) in [("web", "shop_default"), ("lone", "shop_back")] {
        let name = format!("shop-{service}-1");
        let shown = project.selvedge.shown(&name).expect("it is shown");
        let reason = shown["reason"].as_str().expect("a reason");
        assert!(reason.contains(network) && reason.contains("--wire-user-networks"), "{reason}");
        let log = project.selvedge.log();
        let told = log.lines().filter(|line| line.contains("created without a wire") && line.contains(&name));
        assert_eq!(told.count(), 1, "{log}");
    }
    project.compose(&["down", "-t", "1"]);
}

#[test]
fn an_engine_of_yesterday_does_the_same_and_a_label_says_no() {
    let lab = Lab::with_selvedge(&["--wire-user-networks"]);
    let docker = lab.selvedge.docker();
    docker.run(&["network", "create", "mine"]).ok();
    docker.start(&["--name", "one", "--network", "mine", "busybox", "httpd", "-f", "-h", "/etc"]);
    docker.start(&[
        "--name",
        "none",
        "--network",
        "mine",
        "--label",
        "selvedge.network=none",
        "busybox",
        "sleep",
        "1000",
    ]);
    for name in ["one", "one.selvedge.internal"] {
        let url = format!("http://{name}/hostname");
        let told = docker.run(&["run", "--rm", "--network", "mine", "busybox", "wget", "-qO-", &url]);
        assert_eq!(told.ok(), "one", "{name}");
    }
    let plain =
        docker.run(&["run", "--rm", "busybox", "wget", "-qO-", "http://one.selvedge.internal/hostname"]);
    assert_eq!(plain.ok(), "one");
    assert_eq!(lab.host.wires().len(), 1);
    docker.remove(&["one", "none"]);
}
