//! TLS, certificates of our own and credentials, with the real servers.
//!
//! The certificates are made by openssl for each run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use selvedge_cluster::handle::Kind;
use selvedge_cluster::store::Servers;

use crate::lab::{Lab, Wanted, until};
use crate::servers::{self, free_port};

/// A folder with an authority, and a server's and a client's certificate, all PEM.
fn certificates() -> PathBuf {
    let dir = tempfile::tempdir().expect("a directory").keep();
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=authority \
            -addext basicConstraints=critical,CA:TRUE
        for who in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $who.key -out $who.csr -subj /CN=$who
            printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' >$who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out $who.pem -extfile $who.ext
        done
        openssl pkcs12 -export -in server.pem -inkey server.key -out server.p12 -passout pass:secret -name server
        keytool -importcert -noprompt -alias ca -file ca.pem -keystore trust.p12 -storetype PKCS12 -storepass secret
    "#;
    let made = Command::new("sh").args(["-c", script]).current_dir(&dir).output().expect("sh can be started");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    dir
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).expect("it was made")
}

fn secured(endpoint: String, certificates: &Path) -> Servers {
    Servers {
        endpoints: vec![endpoint],
        prefix: "/secure".to_owned(),
        ca: Some(read(certificates, "ca.pem")),
        identity: Some((read(certificates, "client.pem"), read(certificates, "client.key"))),
        session: Duration::from_secs(4),
        ..Servers::default()
    }
}

/// With all that the server wants a host takes part; without it, it is told why, and what runs goes on.
fn takes_part(good: Kind, bad: Vec<(&'static str, Kind)>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let lab = Lab { registry: good };
        let (a, b) = (lab.host("a").await, lab.host("b").await);
        a.claim_block().await;
        a.publish("aaaaaaaaaaaa1111", "10.32.1.5", &["db"]);
        until("b knows it", || b.knows("db", "10.32.1.5")).await;
        for (what, registry) in bad {
            let lab = Lab { registry };
            let stranger = lab.begin("stranger", Wanted::default()).await;
            let error = stranger.cluster.claim_block(None).await.unwrap_err().to_string();
            assert!(error.contains("cannot be reached") && !error.contains('\n'), "{what}: {error}");
            assert!(!stranger.view().read, "{what}");
            assert!(b.peer("stranger").is_none(), "{what}");
        }
    });
}

#[test]
fn etcd_with_tls_a_client_certificate_and_a_password() {
    let dir = certificates();
    let endpoint = servers::start("etcd with TLS", |data, port| {
        let client = format!("https://127.0.0.1:{port}");
        let mut command = servers::etcd_at(data, &client);
        command.arg("--cert-file").arg(dir.join("server.pem")).arg("--key-file").arg(dir.join("server.key"));
        command.arg("--trusted-ca-file").arg(dir.join("ca.pem")).arg("--client-cert-auth");
        command
    });
    enable_passwords(&dir, &endpoint);
    let servers = Servers { user: Some(("root".into(), "pass".into())), ..secured(endpoint, &dir) };
    let nobody = Servers { user: None, ..servers.clone() };
    let wrong = Servers { user: Some(("root".into(), "wrong".into())), ..servers.clone() };
    let plain = Servers { ca: None, identity: None, ..servers.clone() };
    let strange = Servers { ca: Some(read(&certificates(), "ca.pem")), ..servers.clone() };
    let uncertified = Servers { identity: None, ..servers.clone() };
    takes_part(
        Kind::Etcd(servers),
        vec![
            ("no password", Kind::Etcd(nobody)),
            ("a wrong password", Kind::Etcd(wrong)),
            ("no TLS", Kind::Etcd(plain)),
            ("another authority", Kind::Etcd(strange)),
            ("no certificate", Kind::Etcd(uncertified)),
        ],
    );
}

fn enable_passwords(dir: &Path, endpoint: &str) {
    for words in
        [&["user", "add", "root:pass"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
    {
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints=https://{endpoint}"))
            .arg("--cacert")
            .arg(dir.join("ca.pem"))
            .arg("--cert")
            .arg(dir.join("client.pem"))
            .arg("--key")
            .arg(dir.join("client.key"))
            .args(words)
            .output()
            .expect("etcd-client is installed");
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[test]
fn zookeeper_with_tls_and_a_client_certificate() {
    let dir = certificates();
    let endpoint = servers::start("ZooKeeper with TLS", |data, port| {
        let secure = format!(
            "secureClientPort={port}\nsecureClientPortAddress=127.0.0.1\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={0}/server.p12\nssl.keyStore.password=secret\nssl.keyStore.type=PKCS12\n\
             ssl.trustStore.location={0}/trust.p12\nssl.trustStore.password=secret\nssl.trustStore.type=PKCS12\n\
             ssl.clientAuth=need\n",
            dir.display()
        );
        servers::zookeeper_at(data, free_port(), &secure)
    });
    let servers = secured(endpoint, &dir);
    let plain = Servers { ca: None, identity: None, ..servers.clone() };
    let strange = Servers { ca: Some(read(&certificates(), "ca.pem")), ..servers.clone() };
    let uncertified = Servers { identity: None, ..servers.clone() };
    takes_part(
        Kind::Zookeeper(servers),
        vec![
            ("no TLS", Kind::Zookeeper(plain)),
            ("another authority", Kind::Zookeeper(strange)),
            ("no certificate", Kind::Zookeeper(uncertified)),
        ],
    );
}

/// With credentials the entries are theirs: who has others, or none, can neither read nor write them.
#[test]
fn zookeeper_with_a_digest() {
    let servers = Servers {
        endpoints: vec![servers::zookeeper().to_owned()],
        prefix: "/digest".to_owned(),
        user: Some(("selvedge".into(), "pass".into())),
        session: Duration::from_secs(4),
        ..Servers::default()
    };
    let nobody = Servers { user: None, ..servers.clone() };
    let wrong = Servers { user: Some(("selvedge".into(), "wrong".into())), ..servers.clone() };
    takes_part(
        Kind::Zookeeper(servers),
        vec![("no password", Kind::Zookeeper(nobody)), ("a wrong password", Kind::Zookeeper(wrong))],
    );
}
