//! Takes the listening sockets that a service manager hands over (sd_listen_fds(3)).
//!
//! It must never touch a descriptor that was not announced to this very process, and never unlink a socket file: the
//! files belong to the service manager, which keeps them across our restarts.

use crate::error::Error;
use crate::saved::{STATE_ENV, TRIAL_ENV};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getsockname, sockopt};
use std::env;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;
/// More than any service manager hands over; a larger number is a mistake.
const MOST: usize = 1000;

/// A listening unix stream socket that was handed over.
#[derive(Debug)]
pub struct Given {
    /// `FileDescriptorName=` of its socket unit.
    pub name: String,
    /// The path that it is bound to.
    pub path: PathBuf,
    /// The socket.
    pub fd: OwnedFd,
}

/// Whether this process continues a former image of its keeper, which left it all its sockets.
#[must_use]
pub fn is_successor() -> bool {
    env::var_os(STATE_ENV).is_some() || env::var_os(TRIAL_ENV).is_some()
}

/// The sockets handed over to this process; empty if `$LISTEN_PID` names another process. Call it once, before anything
/// else is opened. The variables stay set, as only this process can mistake them for its own: child processes do not
/// inherit them.
///
/// # Errors
/// `Given` if the descriptors do not match the announcement, or are anything but listening unix stream sockets.
pub fn take() -> Result<Vec<Given>, Error> {
    if is_successor() {
        // The former image took them; these descriptor numbers now belong to something else.
        return Ok(Vec::new());
    }
    let value = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (pid, count, names) = (value("LISTEN_PID"), value("LISTEN_FDS"), value("LISTEN_FDNAMES"));
    let names = announced(pid.as_deref(), count.as_deref(), names.as_deref())?;
    // Own all of them first: an error for one must not leave the others open for child processes.
    let fds = (FIRST..).zip(&names).map(|(number, name)| own(number, name)).collect::<Result<Vec<_>, _>>()?;
    names.into_iter().zip(fds).map(|(name, fd)| describe(name, fd)).collect()
}

/// The names of the sockets that these variables announce to us, in the order of their descriptors.
fn announced(pid: Option<&str>, count: Option<&str>, names: Option<&str>) -> Result<Vec<String>, Error> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(Vec::new()) };
    let pid: u32 = pid.parse().map_err(|_| Error::Given(format!("LISTEN_PID={pid} is not a process id")))?;
    if pid != std::process::id() {
        return Ok(Vec::new());
    }
    let wrong = || Error::Given(format!("LISTEN_FDS={count} is not a number from 0 to {MOST}"));
    let count: usize = count.parse().ok().filter(|count| *count <= MOST).ok_or_else(wrong)?;
    let Some(text) = names.filter(|_| count > 0) else { return Ok(vec!["unknown".to_owned(); count]) };
    let names: Vec<String> = text.split(':').map(str::to_owned).collect();
    if names.len() != count {
        return Err(Error::Given(format!("LISTEN_FDNAMES={text} does not name {count} sockets")));
    }
    Ok(names)
}

/// Takes ownership of an announced descriptor and makes it close-on-exec.
fn own(number: RawFd, name: &str) -> Result<OwnedFd, Error> {
    // SAFETY: only borrowed to check that it is open, which is safe for any number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed).map_err(|_| Error::Given(format!("descriptor {number} ({name}) is not open")))?;
    // SAFETY: it is open, and the service manager announced it as ours; `take` is called once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl_setfd(&fd, FdFlags::CLOEXEC).map_err(Error::os("close-on-exec"))?;
    Ok(fd)
}

fn describe(name: String, fd: OwnedFd) -> Result<Given, Error> {
    let is_unix = sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX);
    let is_stream = sockopt::socket_type(&fd) == Ok(SocketType::STREAM);
    if !is_unix || !is_stream || sockopt::socket_acceptconn(&fd) != Ok(true) {
        return Err(Error::Given(format!(
            "{name} is not a listening unix stream socket (ListenStream=/PATH)"
        )));
    }
    let address = getsockname(&fd).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
    let path = address.as_ref().and_then(SocketAddrUnix::path_bytes).map(OsStr::from_bytes);
    match path {
        Some(path) if !path.is_empty() => Ok(Given { path: path.into(), name, fd }),
        _ => Err(Error::Given(format!("{name} has no path (ListenStream=/PATH)"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{announced, describe};
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn here(count: &str, names: Option<&str>) -> Result<Vec<String>, String> {
        let pid = std::process::id().to_string();
        announced(Some(&pid), Some(count), names).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_are_named_in_their_order() {
        assert_eq!(here("2", Some("api:selvedge.socket")).unwrap(), ["api", "selvedge.socket"]);
        assert_eq!(here("1", Some("")).unwrap(), [""]);
        assert_eq!(here("2", None).unwrap(), ["unknown", "unknown"]);
        assert!(here("0", None).unwrap().is_empty());
        assert!(here("0", Some("")).unwrap().is_empty());
    }

    #[test]
    fn what_is_announced_to_another_process_is_not_ours() {
        let none = |pid: Option<&str>, count: Option<&str>| announced(pid, count, Some("a:b:c")).unwrap();
        assert!(none(Some("1"), Some("3")).is_empty());
        assert!(none(None, Some("3")).is_empty());
        assert!(none(Some("1"), Some("nonsense")).is_empty());
        assert!(none(Some(&std::process::id().to_string()), None).is_empty());
    }

    #[test]
    fn nonsense_is_told_in_one_line() {
        for (count, names) in
            [("x", None), ("-1", None), ("", None), ("99999999", None), ("2", Some("a")), ("1", Some("a:b"))]
        {
            let told = here(count, names).unwrap_err();
            assert!(told.contains("LISTEN_FD") && !told.contains('\n'), "{told}");
        }
        assert!(announced(Some("me"), Some("1"), None).unwrap_err().to_string().contains("LISTEN_PID=me"));
    }

    #[test]
    fn only_listening_unix_stream_sockets_with_a_path_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.sock");
        let listening = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let bad: [OwnedFd; 4] = [
            client.into(),
            TcpListener::bind("127.0.0.1:0").unwrap().into(),
            UnixDatagram::unbound().unwrap().into(),
            std::fs::File::open("/dev/null").unwrap().into(),
        ];
        for fd in bad {
            let told = describe("odd".to_owned(), fd).unwrap_err().to_string();
            assert!(told.contains("odd is not a listening unix stream socket"), "{told}");
        }
        let given = describe("api".to_owned(), listening.into()).unwrap();
        assert_eq!((given.name.as_str(), given.path), ("api", path));
    }
}
