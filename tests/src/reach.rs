//! Who reaches whom: servers and callers in the network namespaces of real containers, as their programs would be.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use crate::docker::Docker;
use crate::host::DIG;

/// How long a packet may take. Who is refused hears of it at once; who is not heard of is silent.
const PATIENCE: Duration = Duration::from_secs(2);
/// The TCP ports on which servers answer.
pub const TCP: [u16; 2] = [80, 5432];
/// The UDP port on which they do.
pub const UDP: u16 = 9;

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// It got through, and back.
    Reached,
    /// It was refused, at once.
    Refused,
    /// Nothing came back.
    Silent,
}

/// A network namespace, by a process in it.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The process.
    pub pid: u32,
}

impl Place {
    /// Where a container's programs are.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn of(docker: &Docker, container: &str) -> Self {
        let pid = docker.inspect(container)["State"]["Pid"].as_u64().unwrap_or(0);
        assert!(pid > 0, "{container} does not run");
        Self { pid: u32::try_from(pid).expect("a pid") }
    }

    /// Does something there. Sockets stay where they were opened.
    ///
    /// # Panics
    /// When it cannot be entered.
    pub fn within<T: Send>(self, f: impl FnOnce() -> T + Send) -> T {
        let netns = File::open(format!("/proc/{}/ns/net", self.pid)).expect("the namespace is there");
        // A namespace belongs to a thread: this one does nothing else.
        std::thread::scope(|scope| {
            let done = scope.spawn(move || {
                #[expect(clippy::disallowed_methods, reason = "a thread that does only this and ends")]
                nix::sched::setns(&netns, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
                f()
            });
            done.join().expect("it is done")
        })
    }

    /// Answers there on all ports of [`TCP`] and [`UDP`], until the process ends: what comes is sent back.
    pub fn serve(self) {
        let (listeners, udp) = self.within(|| {
            let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            let tcp = TCP.map(|port| TcpListener::bind((any, port)).expect("a free port"));
            (tcp, UdpSocket::bind((any, UDP)).expect("a free port"))
        });
        for listener in listeners {
            std::thread::spawn(move || accept(&listener));
        }
        std::thread::spawn(move || answer(&udp));
    }

    /// A connection from there.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn connect(self, to: SocketAddr) -> std::io::Result<TcpStream> {
        let stream = self.within(|| TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Calls a TCP port from there.
    #[must_use]
    pub fn tcp(self, to: SocketAddr) -> Answer {
        self.connect(to)
            .and_then(|mut stream| speaks(&mut stream))
            .map_or_else(|error| judge(&error), |()| Answer::Reached)
    }

    /// Calls a UDP port from there.
    #[must_use]
    pub fn udp(self, to: SocketAddr) -> Answer {
        let called = self.within(|| {
            let any: IpAddr = if to.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(to)?;
            socket.send(b"hello")?;
            socket.recv(&mut [0; 16])
        });
        called.map_or_else(|error| judge(&error), |_| Answer::Reached)
    }

    /// Pings from there.
    #[must_use]
    pub fn ping(self, to: IpAddr) -> Answer {
        let output = self.command("busybox", &["ping", "-c", "1", "-W", "1", &to.to_string()]);
        // A refusal is no echo: busybox goes on waiting. That it was told is seen by the kernel's other callers.
        if output.code == 0 { Answer::Reached } else { Answer::Refused }
    }

    /// Runs a program of this machine there.
    #[must_use]
    pub fn command(self, program: &str, arguments: &[&str]) -> crate::shell::Output {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid)).arg(program).args(arguments);
        crate::shell::run(&mut command, b"")
    }

    /// What DNS says there about a name: its status, and its data, sorted.
    #[must_use]
    pub fn dig(self, question: &str) -> (String, Vec<String>) {
        let words: Vec<&str> = question.split_whitespace().collect();
        let dig: Vec<&str> = DIG.split(' ').collect();
        let text =
            self.command(dig[0], &[&dig[1..], &["+noall", "+comments", "+answer"], &words].concat()).stdout;
        let status =
            text.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("SILENT");
        let data = |line: &str| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ");
        let mut answers: Vec<String> =
            text.lines().filter(|line| !line.starts_with(';') && !line.is_empty()).map(data).collect();
        answers.sort();
        (status.to_owned(), answers)
    }
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        std::thread::spawn(move || echo(stream));
    }
}

fn answer(socket: &UdpSocket) {
    let mut buffer = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..length], from);
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 512];
    while let Ok(length) = stream.read(&mut buffer)
        && length > 0
        && stream.write_all(&buffer[..length]).is_ok()
    {}
}

/// Whether an open connection carries bytes both ways.
///
/// # Errors
/// As the kernel says.
pub fn speaks(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])
}

fn judge(error: &std::io::Error) -> Answer {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Answer::Silent,
        _ => Answer::Refused,
    }
}

/// The letters of what reaches an address: `8` (TCP 80), `5` (TCP 5432), `u` (UDP), `i` (ICMP); `-` for nothing, and `?`
/// behind whatever was silent instead of refused.
#[must_use]
pub fn what_reaches(from: Place, to: IpAddr) -> String {
    let calls: BTreeMap<char, Answer> = BTreeMap::from([
        ('5', from.tcp((to, TCP[1]).into())),
        ('8', from.tcp((to, TCP[0]).into())),
        ('i', from.ping(to)),
        ('u', from.udp((to, UDP).into())),
    ]);
    let letters: String = calls
        .iter()
        .filter(|(_, answer)| **answer != Answer::Refused)
        .map(
            |(letter, answer)| {
                if *answer == Answer::Silent { format!("{letter}?") } else { letter.to_string() }
            },
        )
        .collect();
    if letters.is_empty() { "-".to_owned() } else { letters }
}
