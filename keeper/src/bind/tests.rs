//! The sockets, made for real in a temporary directory.

use super::{bind, lock, unix};
use crate::error::Error;
use crate::plan::{Listener, ListenerKind};
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

#[test]
fn a_stale_socket_is_replaced_and_has_mode_and_owner() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    drop(UnixListener::bind(&path).unwrap());
    let before = fs::metadata(&path).unwrap().ino();
    let fd = unix("api", &path, 0o640, (12, 34)).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_ne!(found.ino(), before);
    assert_eq!((found.permissions().mode() & 0o7777, found.uid(), found.gid()), (0o640, 12, 34));
    UnixStream::connect(&path).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the temporary name is left behind");
    drop(fd);
}

#[test]
fn who_answers_keeps_his_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    let _there = UnixListener::bind(&path).unwrap();
    assert!(matches!(unix("api", &path, 0o600, (0, 0)), Err(Error::InUse(_))));
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_directory_in_the_way_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let error = unix("api", dir.path(), 0o600, (0, 0)).unwrap_err();
    assert!(error.to_string().contains("not a socket"), "{error}");
}

#[test]
fn the_longest_path_works_and_a_longer_one_is_told() {
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let room = 107 - dir.path().as_os_str().len() - 1;
    let path = dir.path().join("x".repeat(room));
    assert_eq!(path.as_os_str().len(), 107);
    let _fd = unix("api", &path, 0o600, (0, 0)).unwrap();
    UnixStream::connect(&path).unwrap();
    let long = PathBuf::from(format!("{}x", path.display()));
    let error = unix("api", &long, 0o600, (0, 0)).unwrap_err();
    assert!(error.to_string().contains("108 bytes"), "{error}");
}

#[test]
fn the_worker_of_a_killed_keeper_is_given_time_to_leave() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d.sock");
    let there = UnixListener::bind(&path).unwrap();
    let leaver = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(there);
    });
    let kind = ListenerKind::UnixStream { path: path.clone(), mode: 0o600, uid: 0, gid: 0 };
    let _bound = bind(&Listener { name: "api".into(), kind }).unwrap();
    leaver.join().unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_second_keeper_is_locked_out_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let held = lock(dir.path()).unwrap();
    assert!(matches!(lock(dir.path()), Err(Error::Locked(_))));
    drop(held);
    lock(dir.path()).unwrap();
}

#[test]
fn addresses_need_not_exist_yet() {
    for kind in [
        ListenerKind::Udp("169.254.77.1:53535".parse().unwrap()),
        ListenerKind::Tcp("169.254.77.1:53535".parse().unwrap()),
    ] {
        bind(&Listener { name: "dns".into(), kind }).unwrap();
    }
}

#[test]
fn a_taken_port_is_told_with_name_and_address() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error =
        bind(&Listener { name: "dns".into(), kind: ListenerKind::Udp(address) }).unwrap_err().to_string();
    assert!(error.contains("dns") && error.contains(&address.to_string()), "{error}");
}
