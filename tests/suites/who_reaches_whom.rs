//! Who may reach whom, as a table: every cell is tried for real, by IPv4 and IPv6, TCP, UDP and ICMP, on one host and
//! between two, in both policies, and again after whatever may happen to a host.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use selvedge_tests::engine::Engine;
use selvedge_tests::firewalld::Firewalld;
use selvedge_tests::fleet::{Fleet, Member, Plan, StoreKind};
use selvedge_tests::host::Host;
use selvedge_tests::reach::{Answer, Place, TCP, speaks, what_reaches};
use selvedge_tests::selvedge::Selvedge;
use selvedge_tests::shell::run;
use selvedge_tests::wait::until_true;

const SOON: Duration = Duration::from_secs(5);

/// Name, host, and what `docker run` is told.
const PARTIES: [(&str, usize, &[&str]); 7] = [
    ("web", 0, &["-l", "selvedge.tenant=shop"]),
    ("web2", 1, &["-e", "MARATHON_APP_ID=/shop/front/web2"]),
    ("vault", 0, &["-l", "com.docker.compose.project=bank", "-p", "8080:80", "-p", "9090:9/udp"]),
    ("vault2", 1, &["-l", "selvedge.tenant=bank"]),
    ("db", 1, &["-l", "selvedge.tenant=bank", "-l", "selvedge.allow=tenant:shop 5432/tcp"]),
    (
        "board",
        0,
        &["-l", "selvedge.tenant=board", "-l", "selvedge.allow=app:/shop/front, name:vault2 80/tcp"],
    ),
    ("open", 1, &["-e", "MARATHON_APP_ID=/open/x", "-e", "MARATHON_APP_LABEL_SELVEDGE_ALLOW=any"]),
];

/// Whoever stands on the left reaches whoever stands above by this, if tenants are kept apart: see `what_reaches`.
const TABLE: &str = "
            web   web2  vault vault2  db    board open
    web     58iu  58iu  -     -       5     -     58iu
    web2    58iu  58iu  -     -       5     58iu  58iu
    vault   -     -     58iu  58iu    58iu  -     58iu
    vault2  -     -     58iu  58iu    58iu  8     58iu
    db      -     -     58iu  58iu    58iu  -     58iu
    board   -     -     -     -       -     58iu  58iu
    open    -     -     -     -       -     -     58iu
";

fn cells() -> BTreeMap<(String, String), String> {
    let mut lines = TABLE.lines().filter(|line| !line.trim().is_empty());
    let above: Vec<&str> = lines.next().expect("a head").split_whitespace().collect();
    let row = |line: &'static str| {
        let mut words = line.split_whitespace();
        let left = words.next().expect("a name").to_owned();
        let cell = move |(to, what): (&str, &str)| ((left.clone(), to.to_owned()), what.to_owned());
        above.clone().into_iter().zip(words).map(cell).collect::<Vec<_>>()
    };
    lines.flat_map(row).collect()
}

/// By everything.
const ALL: &str = "58iu";

/// Two hosts with all of them, whose programs answer.
struct Town {
    fleet: Fleet,
    places: BTreeMap<String, (Place, Ipv4Addr)>,
    cells: BTreeMap<(String, String), String>,
}

impl Town {
    fn new(policy: &str) -> Self {
        Self::of(policy, false)
    }

    fn of(policy: &str, firewalld: bool) -> Self {
        let options = ["--policy", policy, "--pool6", "fd53:1::/96"].map(str::to_owned);
        let plan =
            Plan { hosts: 2, store: Some(StoreKind::Etcd), options: options.to_vec(), ..Plan::default() };
        let fleet = Fleet::new(&Plan { engine: vec!["--live-restore".into()], firewalld, ..plan });
        // The kernel would tell one caller of refusals once a second; here many calls are made at once.
        for member in &fleet.members {
            member.host.sh("sysctl -w net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0").ok();
        }
        let places = PARTIES.iter().map(|(name, host, options)| {
            let place = fleet.members[*host].serving(name, options);
            ((*name).to_owned(), place)
        });
        let places = places.collect();
        let cells = if policy == "tenant" { cells() } else { BTreeMap::new() };
        let town = Self { fleet, places, cells };
        for member in &town.fleet.members {
            until_true(&format!("{} knows all", member.name), SOON, || town.is_known_to(member));
        }
        town
    }

    fn expected(&self, from: &str, to: &str) -> &str {
        self.cells.get(&(from.to_owned(), to.to_owned())).map_or(ALL, String::as_str)
    }

    fn is_known_to(&self, member: &Member) -> bool {
        let resolved = |name: &str| member.host.resolve(&first_name(name));
        self.places.iter().all(|(name, (_, address))| resolved(name) == [address.to_string()])
    }

    fn place(&self, name: &str) -> (Place, IpAddr) {
        let (place, address) = self.places[name];
        (place, address.into())
    }

    /// Containers, and the hosts themselves.
    fn callers(&self) -> Vec<(String, Place)> {
        let hosts = self.fleet.members.iter().map(|member| {
            let place = Place { pid: member.selvedge.keeper() };
            (format!("the host {}", member.name), place)
        });
        let parties = self.places.iter().map(|(name, (place, _))| (name.clone(), *place));
        parties.chain(hosts).collect()
    }

    /// Tries every cell; what is not as expected.
    fn wrong(&self) -> Vec<String> {
        let cell = &|name: &str, place: Place, to: &str, address: IpAddr| {
            let (seen, expected) = (what_reaches(place, address), self.expected(name, to));
            (seen != expected).then(|| format!("{name} to {to} ({address}): {seen} instead of {expected}"))
        };
        let cells = self.callers().into_iter().flat_map(|(name, place)| {
            let to = self.places.iter().flat_map(|(to, (_, four))| both(*four).map(|address| (to, address)));
            to.map(move |(to, address)| (name.clone(), place, to, address))
        });
        // All at once: an echo that is refused is waited for.
        std::thread::scope(|scope| {
            let tried: Vec<_> = cells
                .map(|(name, place, to, address)| scope.spawn(move || cell(&name, place, to, address)))
                .collect();
            tried.into_iter().filter_map(|cell| cell.join().expect("a cell is tried")).collect()
        })
    }

    /// Who does not reach the first host's published ports, as everybody does in both policies.
    fn cut_off(&self) -> Vec<String> {
        let host: IpAddr = self.fleet.members[0].address.parse().expect("an address");
        // docker-proxy, which serves containers of its own host, answers UDP by another address than it was asked at.
        let behind = |name: &str| PARTIES.iter().any(|(party, host, _)| *party == name && *host == 0);
        let reaches = |(name, place): &(String, Place)| {
            let udp = behind(name) || place.udp((host, 9090).into()) == Answer::Reached;
            udp && place.tcp((host, 8080).into()) == Answer::Reached
        };
        self.callers().into_iter().filter(|caller| !reaches(caller)).map(|(name, _)| name).collect()
    }

    fn holds(&self, when: &str) {
        let wrong = self.wrong();
        let rules = || {
            self.fleet
                .members
                .iter()
                .map(|m| m.host.sh("nft list ruleset | head -c 20000").stdout)
                .collect::<String>()
        };
        assert!(wrong.is_empty(), "{when}: {wrong:#?}\n{}", rules());
    }

    /// Whatever may happen to a host.
    fn endures(&self) {
        let [a, b] = &self.fleet.members[..] else { panic!("two hosts") };
        self.holds("at first");
        assert_eq!(self.cut_off(), [""; 0], "everybody reaches published ports");
        a.selvedge.kill_worker();
        b.selvedge.kill_worker();
        self.holds("while workers were killed");
        assert_eq!(a.selvedge.ask(&["upgrade"]).code, 0);
        self.holds("after an upgrade");
        self.fleet.cut_from_store(0);
        a.selvedge.kill_worker();
        self.holds("without the registry, and after a kill without it");
        assert_eq!(self.cut_off(), [""; 0], "published ports neither");
        self.fleet.heal();
        b.engine.end(Signal::SIGTERM);
        self.holds("without the engine");
        b.engine.start_again();
        until_true("the engine is followed", SOON, || b.selvedge.status()["engine"]["up"] == true);
        self.holds("after a restart of the engine");
        assert_eq!(self.cut_off(), [""; 0], "everybody reaches published ports");
    }
}

/// A container's address, and the one that follows from it.
fn both(four: Ipv4Addr) -> [IpAddr; 2] {
    [four.into(), IpAddr::V6(format!("fd53:1::{four}").parse().expect("an address"))]
}

/// By what a party is known: its app's path, where there is one.
fn first_name(name: &str) -> String {
    match name {
        "web2" => "web2.front.shop".to_owned(),
        "open" => "x.open".to_owned(),
        _ => name.to_owned(),
    }
}

#[test]
fn tenants_reach_their_own_and_whoever_lets_them_whatever_happens() {
    let town = Town::new("tenant");
    town.endures();
    for member in &town.fleet.members {
        member.host.sh("nft flush ruleset").ok();
    }
    let is_back = |member: &Member| member.host.keeps_tenants_apart();
    until_true("the rules are back", SOON, || town.fleet.members.iter().all(is_back));
    until_true("on both hosts", SOON, || {
        town.fleet.members.iter().all(|member| member.selvedge.ask(&["check", "--network"]).code == 0)
    });
    town.holds("after somebody flushed all rules");
    the_rest_of_the_world(&town);
}

/// The engine's bridge, names, and what is told of refusals.
fn the_rest_of_the_world(town: &Town) {
    let a = &town.fleet.members[0];
    // On the engine's own bridge.
    let bridge = |name: &str| -> IpAddr {
        let inspect = a.engine.docker().inspect(name);
        let text =
            inspect["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].as_str().expect("an address");
        text.parse().expect("an address")
    };
    assert_eq!(what_reaches(town.place("web").0, bridge("vault")), "-", "by the engine's bridge");
    assert_eq!(what_reaches(town.place("web").0, bridge("board")), "-", "by the engine's bridge");
    let (friend, _) = a.serving("cart", &["-l", "selvedge.tenant=shop"]);
    assert_eq!(what_reaches(friend, bridge("web")), "58iu", "by the engine's bridge, of one tenant");
    names(town);
    let pair = |pair: &serde_json::Value| pair["from"] == "shop" && pair["to"] == "bank";
    until_true("refusals are counted by tenants", Duration::from_secs(15), || {
        let status = a.selvedge.status();
        status["policy"]["refused"].as_array().is_some_and(|list| list.iter().any(pair))
    });
    let is_told = |line: &str| line.contains("refused") && line.contains("called");
    until_true("and told in the log", Duration::from_secs(15), || a.selvedge.log().lines().any(is_told));
}

/// A name is there for those who may call it.
fn names(town: &Town) {
    let (web, board) = (town.place("web").0, town.place("board").0);
    let asked = |place: Place, name: &str| place.dig(&format!("{name}.selvedge.internal"));
    let address = |name: &str| vec![town.place(name).1.to_string()];
    assert_eq!(asked(web, "web2.front.shop"), ("NOERROR".into(), address("web2")));
    assert_eq!(asked(web, "db"), ("NOERROR".into(), address("db")));
    assert_eq!(asked(web, "vault"), ("NXDOMAIN".into(), vec![]));
    assert_eq!(asked(board, "db"), ("NXDOMAIN".into(), vec![]));
    assert_eq!(asked(board, "x.open"), ("NOERROR".into(), address("open")));
    let pointer = |place: Place, name: &str| place.dig(&format!("-x {}", town.place(name).1));
    assert_eq!(pointer(web, "db"), ("NOERROR".into(), vec!["db.selvedge.internal.".to_owned()]));
    assert_eq!(pointer(web, "vault"), ("NXDOMAIN".into(), vec![]));
}

#[test]
fn a_refusal_is_told_by_port_rule_and_name_on_both_hosts_also_of_callers_that_have_ended() {
    let town = Town::new("tenant");
    let [a, b] = &town.fleet.members[..] else { panic!("two hosts") };
    let (guest, _) = a.serving("guest", &["-l", "selvedge.tenant=shop"]);
    let (_, vault) = town.places["vault2"];
    for address in both(vault) {
        assert_eq!(what_reaches(guest, address), "-", "{address}");
    }
    a.selvedge.docker().remove(&["guest"]);
    all_is_told(a, b, "at first");
    for member in [a, b] {
        let log = || member.selvedge.log();
        let is_told = |line: &str| line.contains("caller=shop/guest called=bank/vault2 protocol=tcp port=80");
        until_true("it is in the log", SOON, || log().lines().any(is_told));
    }
    for member in [a, b] {
        let names = || member.host.sh("nft list sets").stdout;
        until_true("its name outlives the worker", SOON, || names().contains("comment \"shop/guest\""));
    }
    a.selvedge.kill_worker();
    b.selvedge.kill_worker();
    all_is_told(a, b, "after kills");
    // The next owner of the address is not blamed for it.
    let known = town.fleet.members[0].selvedge.docker();
    let other = format!("selvedge.ip={}", address_of(a, "shop/guest"));
    known.start(&["--name", "heir", "-l", "selvedge.tenant=heirs", "-l", &other, "busybox", "sleep", "1d"]);
    let blamed = |calls: &serde_json::Value| calls["caller"].as_str().is_some_and(|who| who.contains("heir"));
    until_true("what was the former owner's is forgotten", SOON, || {
        refused(a, |calls| calls["caller"] == "shop/guest").is_empty()
    });
    assert!(refused(a, blamed).is_empty());
}

/// What `status` shows of refusals.
fn refused(member: &Member, is_it: impl Fn(&serde_json::Value) -> bool) -> Vec<serde_json::Value> {
    let list = member.selvedge.status()["policy"]["refused"].as_array().cloned().unwrap_or_default();
    list.into_iter().filter(|calls| is_it(calls)).collect()
}

/// The address that had the ended caller, as the kernel remembers it.
fn address_of(member: &Member, who: &str) -> String {
    let sets = member.host.sh("nft list sets | tr ',{}' '\\n'").stdout;
    let line =
        sets.lines().find(|line| line.contains(&format!("comment \"{who}\""))).expect("it is written down");
    line.split_whitespace().next().expect("an address").to_owned()
}

/// TCP, UDP and ICMP of both families, on both hosts.
fn all_is_told(a: &Member, b: &Member, when: &str) {
    let calls = [("tcp", Some(80)), ("tcp", Some(5432)), ("udp", Some(9)), ("icmp", None), ("icmp6", None)];
    for member in [a, b] {
        for (protocol, port) in calls {
            let is_it = |calls: &serde_json::Value| {
                calls["caller"] == "shop/guest"
                    && calls["called"] == "bank/vault2"
                    && calls["rule"] == "selvedge.allow"
                    && (calls["protocol"].as_str(), calls["port"].as_u64()) == (Some(protocol), port)
            };
            let what = format!("{when}: {} tells of {protocol} {port:?}", member.name);
            until_true(&what, Duration::from_secs(30), || refused(member, is_it).len() == 1);
        }
        let text = member.selvedge.ask(&["status"]).stdout;
        assert!(text.contains("shop/guest to bank/vault2 tcp 80: "), "{when}: {text}");
        assert!(text.contains(" packets refused in the last day, by selvedge.allow"), "{when}: {text}");
    }
}

#[test]
fn without_a_policy_everybody_reaches_everybody() {
    let town = Town::new("open");
    town.endures();
    assert!(!town.fleet.members[0].host.keeps_tenants_apart());
}

#[test]
fn beside_firewalld_it_is_the_same() {
    let town = Town::of("tenant", true);
    town.holds("beside firewalld");
    let firewalls: Vec<&Firewalld> =
        town.fleet.members.iter().filter_map(|member| member.firewall.as_ref()).collect();
    let sources = || firewalls[0].ask(&["--zone=trusted", "--list-sources"]).stdout.trim().to_owned();
    assert_eq!(sources(), "10.32.0.0/12 fd53:1::a20:0/108", "the pool, and nothing else");
    for firewall in &firewalls {
        firewall.ask(&["--reload"]).ok();
    }
    let [web, web2] = ["web", "web2"].map(|name| town.place(name));
    let is_open = || {
        let reach = [(web.0, web2.1), (web2.0, web.1)].map(|(from, to)| what_reaches(from, to) == ALL);
        reach == [true; 2] && web.0.dig("db.selvedge.internal").0 == "NOERROR"
    };
    // firewall-cmd is a Python program, runs on both hosts at once, and competes with engines that rewrite their rules.
    until_true("it is told again of what it has forgotten", Duration::from_secs(20), is_open);
    town.holds("after a reload of firewalld");
    assert_eq!(town.cut_off(), [""; 0], "the engine has heard of the reload too");
    town.fleet.members.iter().for_each(|member| member.selvedge.kill_worker());
    town.holds("after workers were killed");
    // One that cannot be told is told of, once it has closed.
    let (first, other) = (&town.fleet.members[0], &town.fleet.members[1]);
    firewalls[1].ask(&["--zone=trusted", "--remove-source=10.32.0.0/12"]).ok();
    until_true("it is let in again", Duration::from_secs(20), || {
        firewalls[1].ask(&["--zone=trusted", "--query-source=10.32.0.0/12"]).code == 0
    });
    firewalls[1].mute();
    other.host.sh("nft flush chain inet firewalld filter_INPUT_ZONES").ok();
    let warned = |what: &str| other.selvedge.ask(&["status"]).stdout.contains(what);
    until_true("a warning", Duration::from_secs(20), || {
        warned("WARNING   the host's firewalls cannot be put right: firewall-cmd")
    });
    let mut check = other.selvedge.command(&["check", "--pool6", "fd53:1::/96"]);
    assert!(
        run(&mut check, b"").stdout.contains("add 10.32.0.0/12 and fd53:1::a20:0/108 as a source"),
        "check says what to do"
    );
    // What an administrator has decided stays.
    firewalls[0].ask(&["--zone=trusted", "--change-source=10.32.0.0/12", "--zone=home"]).ok();
    first.selvedge.kill_worker();
    assert!(!sources().contains("10.32"), "{}", sources());
}

#[test]
fn a_program_s_first_instruction_meets_the_rules() {
    let town = Town::new("tenant");
    let docker = town.fleet.members[0].selvedge.docker();
    let call = |tenant: &str, name: &str| {
        let (_, address) = town.place(name);
        let label = format!("selvedge.tenant={tenant}");
        let line = format!("nc -w 2 {address} {} < /dev/null", TCP[0]);
        docker.run(&["run", "--rm", "-l", &label, "busybox", "sh", "-c", &line]).code
    };
    for round in 0..8 {
        assert_eq!(call("shop", "web"), 0, "round {round}: on the same host");
        assert_eq!(call("shop", "web2"), 0, "round {round}: on the other one");
        assert_ne!(call("shop", "vault"), 0, "round {round}: another tenant on the same host");
        assert_ne!(call("shop", "vault2"), 0, "round {round}: another tenant on the other one");
    }
}

#[test]
fn a_connection_lives_as_long_as_the_rule_that_lets_it() {
    let town = Town::new("tenant");
    let a = &town.fleet.members[0];
    let (_, address) =
        a.serving("called", &["-l", "selvedge.tenant=one", "-l", "selvedge.allow=name:caller, tenant:shop"]);
    let (caller, _) = a.serving("caller", &["-l", "selvedge.tenant=two"]);
    let to = (address, TCP[0]).into();
    let mut granted = caller.connect(to).expect("the name lets it");
    let mut lasting = town.place("web").0.connect(to).expect("its tenant lets it");
    for stream in [&mut granted, &mut lasting] {
        speaks(stream).expect("it speaks");
    }
    a.selvedge.docker().run(&["rename", "caller", "nobody"]).ok();
    until_true("what the name let is cut", SOON, || speaks(&mut granted).is_err());
    speaks(&mut lasting).expect("what another rule lets is not");
    for _ in 0..3 {
        assert_eq!(a.selvedge.ask(&["upgrade"]).code, 0);
        speaks(&mut lasting).expect("an upgrade of the worker cuts nothing");
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_refused_with_its_column() {
    let lab = selvedge_tests::Lab::new();
    let docker = lab.selvedge.docker();
    for (rules, told) in [
        ("tenant:web 5432/sctp", "column 12"),
        ("tenant:web,planet:mars", "column 12"),
        ("cidr:10.0.0.1/8", "the network is 10.0.0.0/8"),
    ] {
        let refused = docker.run(&["create", "-l", &format!("selvedge.allow={rules}"), "busybox", "true"]);
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("selvedge.allow") && refused.stderr.contains(told),
            "{}",
            refused.stderr
        );
    }
    let refused =
        docker.run(&["create", "-e", "MARATHON_APP_LABEL_SELVEDGE_ALLOW=nobody", "busybox", "true"]);
    assert!(refused.stderr.contains("MARATHON_APP_LABEL_SELVEDGE_ALLOW"), "{}", refused.stderr);
}

#[test]
fn a_network_that_a_running_container_is_connected_to_is_no_way_round() {
    let lab = selvedge_tests::Lab::with_selvedge(&["--policy", "tenant"]);
    let docker = lab.selvedge.docker();
    let start = |name: &str, tenant: &str| {
        docker.start(&["--name", name, "-l", &format!("selvedge.tenant={tenant}"), "busybox", "sleep", "1d"]);
        let place = Place::of(&docker, name);
        place.serve();
        place
    };
    let [web, cart, _] =
        [("web", "shop"), ("cart", "shop"), ("vault", "bank")].map(|(name, of)| start(name, of));
    docker.run(&["network", "create", "later"]).ok();
    for name in ["web", "cart", "vault"] {
        docker.run(&["network", "connect", "later", name]).ok();
    }
    let at = |name: &str| -> IpAddr {
        let inspect = lab.engine.docker().inspect(name);
        let address = inspect["NetworkSettings"]["Networks"]["later"]["IPAddress"].as_str();
        address.and_then(|text| text.parse().ok()).expect("an address")
    };
    until_true("it is judged there too", SOON, || what_reaches(web, at("vault")) == "-");
    until_true("and let through where it may be", SOON, || what_reaches(cart, at("web")) == "58iu");
    lab.selvedge.kill_worker();
    assert_eq!(what_reaches(web, at("vault")), "-");
    assert_eq!(what_reaches(cart, at("web")), "58iu");
}

#[test]
fn the_engine_s_firewall_is_opened_again_when_somebody_has_closed_it() {
    let lab = selvedge_tests::Lab::new();
    let docker = lab.selvedge.docker();
    let [(one, _), (_, other)] = ["one", "other"].map(|name| {
        docker.start(&["--name", name, "busybox", "sleep", "1d"]);
        let place = Place::of(&docker, name);
        place.serve();
        let address: IpAddr = docker.address(name).parse().expect("an address");
        (place, address)
    });
    assert_eq!(what_reaches(one, other), ALL);
    lab.host.sh("iptables -F DOCKER-USER").ok();
    let rules = || lab.host.sh("iptables -S DOCKER-USER").stdout.matches("sv+").count();
    until_true("our rules are back", SOON, || rules() == 2);
    assert_eq!(what_reaches(one, other), ALL);
}

#[test]
fn what_comes_by_the_engines_own_proxy_is_judged_too_where_published_ports_are() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let options = ["--policy", "tenant", "--policy-published", "deny"];
    let selvedge = Selvedge::start(&host, &engine, &options);
    let docker = selvedge.docker();
    for (name, port, more) in [("closed", "8080", ""), ("open", "8081", "any 80/tcp")] {
        let (published, allow) = (format!("{port}:80"), format!("selvedge.allow={more}"));
        let labels = ["-l", "selvedge.tenant=bank", "-l", allow.as_str()];
        let labels = if more.is_empty() { &labels[..2] } else { &labels[..] };
        let program = ["busybox", "httpd", "-f", "-h", "/etc"];
        docker.start(&[&["--name", name, "-p", &published][..], labels, &program].concat());
    }
    docker.start(&["--name", "shop", "-l", "selvedge.tenant=shop", "busybox", "sleep", "1d"]);
    docker.start(&["--name", "bank", "-l", "selvedge.tenant=bank", "busybox", "sleep", "1d"]);
    // The host as a container on the bridge sees it: the engine leaves such calls to its proxy, which takes every connection
    // and then finds that it cannot pass it on.
    let gateway: IpAddr = [172, 17, 0, 1].into();
    let [closed, open] =
        ["closed", "open"].map(|name| docker.address(name).parse::<IpAddr>().expect("an address"));
    for (from, to, expected) in [
        ("shop", (gateway, 8080), false),
        ("shop", (gateway, 8081), true),
        ("shop", (closed, 80), false),
        ("shop", (open, 80), true),
        ("bank", (closed, 80), true),
    ] {
        assert_eq!(fetches(Place::of(&docker, from), to.into()), expected, "{from} from {to:?}");
    }
}

/// Whether a file is served there.
fn fetches(from: Place, address: std::net::SocketAddr) -> bool {
    let Ok(mut stream) = from.connect(address) else { return false };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /passwd HTTP/1.0\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains("root:")
}

#[test]
fn another_policy_counts_when_the_upgrade_to_it_is_done_and_not_before() {
    let host = Host::new();
    let engine = Engine::debian(&host, &[]);
    let file = host.path("selvedge.toml");
    let config = |text: &str| std::fs::write(&file, text).expect("a file can be written");
    config("policy = \"tenant\"\n");
    let selvedge = Selvedge::prepare(&host, &engine.socket, &["--config", &file.display().to_string()]);
    selvedge.start_again();
    let docker = selvedge.docker();
    let [(shop, own), (_, bank)] = ["shop", "bank"].map(|tenant| {
        let label = format!("selvedge.tenant={tenant}");
        docker.start(&["--name", tenant, "-l", &label, "busybox", "sleep", "1d"]);
        let place = Place::of(&docker, tenant);
        place.serve();
        (place, docker.address(tenant).parse::<IpAddr>().expect("an address"))
    });
    let cart = Place::of(&docker, {
        docker.start(&["--name", "cart", "-l", "selvedge.tenant=shop", "busybox", "sleep", "1d"]);
        "cart"
    });
    let there = || host.keeps_tenants_apart();
    config("policy = \"open\"\n");
    // A new worker that waits for an engine is not ready in time.
    let dockerd = nix::unistd::Pid::from_raw(i32::try_from(engine.pid()).expect("a pid"));
    nix::sys::signal::kill(dockerd, Signal::SIGSTOP).expect("it lives");
    let upgrade = selvedge.ask(&["upgrade", "--timeout", "2s"]);
    let seen = (upgrade.code, there(), what_reaches(shop, bank));
    nix::sys::signal::kill(dockerd, Signal::SIGCONT).expect("it lives");
    assert_eq!(seen, (1, true, "-".to_owned()), "an upgrade that fails changes nothing: {}", upgrade.stderr);
    assert_eq!(selvedge.ask(&["upgrade"]).code, 0);
    until_true("everybody reaches everybody", SOON, || what_reaches(shop, bank) == ALL);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!there(), "the last worker has put nothing back");
    // And back again: what may go on is not cut for a moment.
    let mut open = cart.connect((own, TCP[0]).into()).expect("of one tenant");
    config("policy = \"tenant\"\n");
    let upgraded = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| {
            let code = selvedge.ask(&["upgrade"]).code;
            upgraded.store(true, Ordering::Relaxed);
            code
        });
        while !upgraded.load(Ordering::Relaxed) {
            speaks(&mut open).expect("an open connection of one tenant goes on");
            assert_eq!(cart.tcp((own, TCP[1]).into()), Answer::Reached, "and new ones are let in");
        }
        assert_eq!(upgrade.join().expect("it ends"), 0);
    });
    assert_eq!(what_reaches(shop, bank), "-");
    speaks(&mut open).expect("it goes on");
}
