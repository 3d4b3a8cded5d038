//! Name servers that are asked by TLS: a real unbound with certificates of our own, made by openssl for each run.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use selvedge_dns::Secured;

use crate::support::Lab;

/// An unbound that is asked by TLS alone; it ends with this.
struct Unbound {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
}

impl Drop for Unbound {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An authority, and a certificate of it for `dns.test` and 127.0.0.1.
fn certificates(dir: &Path) {
    let script = r"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=authority \
            -addext basicConstraints=critical,CA:TRUE
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server
        printf 'subjectAltName=DNS:dns.test,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem -extfile server.ext
    ";
    let made = Command::new("sh").args(["-c", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

impl Unbound {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path());
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "server:\n interface: 127.0.0.1@{port}\n tls-port: {port}\n tls-service-key: server.key\n tls-service-pem: server.pem\n \
             directory: {dir}\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n \
             module-config: iterator\n local-zone: \"example.test.\" static\n local-data: \"www.example.test. 60 IN A 192.0.2.7\"\n\
             remote-control:\n control-enable: no\n",
            port = address.port(),
            dir = dir.path().display()
        );
        std::fs::write(dir.path().join("unbound.conf"), config).unwrap();
        let mut unbound = Command::new("/usr/sbin/unbound");
        let child =
            unbound.arg("-d").arg("-c").arg("unbound.conf").current_dir(dir.path()).stderr(Stdio::null());
        let unbound = Self { child: child.spawn().unwrap(), dir, address };
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "unbound does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        unbound
    }

    /// A server that asks it, and expects this name in its certificate.
    fn asked(&self, name: &str, authority: &str) -> Lab {
        Lab::start_with(|settings| {
            settings.upstreams = vec![self.address];
            settings.secured = vec![Secured { address: self.address, name: name.to_owned() }];
            settings.authorities = Some(std::fs::read_to_string(self.dir.path().join(authority)).unwrap());
        })
    }
}

#[test]
fn names_are_asked_by_tls_and_the_server_must_be_the_one_that_was_named() {
    let unbound = Unbound::start();
    for name in ["dns.test", "127.0.0.1"] {
        let lab = unbound.asked(name, "ca.pem");
        for transport in ["", "+tcp"] {
            lab.says(&format!("{transport} www.example.test"), &["A\t192.0.2.7"]);
        }
        // On the connection that is there.
        lab.says("nope.example.test", &["status: NXDOMAIN"]);
    }
    let mistaken = [("other.test", "ca.pem"), ("127.0.0.2", "ca.pem")];
    for (name, authority) in mistaken {
        let lab = unbound.asked(name, authority);
        lab.says("www.example.test", &["status: SERVFAIL", "EDE: 23 (Network Error)"]);
    }
    // A certificate of another authority's, which here is the server's own, taken for one.
    certificates(unbound.dir.path());
    unbound.asked("dns.test", "ca.pem").says("www.example.test", &["status: SERVFAIL", "EDE: 23"]);
}

#[test]
fn a_connection_that_the_server_has_ended_is_made_again() {
    let unbound = Unbound::start();
    let lab = unbound.asked("dns.test", "ca.pem");
    lab.says("www.example.test", &["A\t192.0.2.7"]);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(unbound.child.id()).unwrap());
    // Reloads: listens again, and ends its connections.
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    lab.says("nope.example.test", &["status: NXDOMAIN"]);
}
