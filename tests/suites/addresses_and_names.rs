//! Every container has an address and a name of its own, from its first instruction on.

use selvedge_tests::Lab;

#[test]
fn two_containers_find_each_other_by_name_in_both_directions() {
    let lab = Lab::shared();
    let docker = lab.selvedge.docker();
    docker.start(&["--name", "pair-a", "busybox", "httpd", "-f", "-h", "/etc"]);
    docker.start(&["--name", "pair-b", "busybox", "httpd", "-f", "-h", "/etc"]);
    for (from, to) in [("pair-a", "pair-b"), ("pair-b", "pair-a")] {
        let url = format!("http://{to}.selvedge.internal/hostname");
        assert_eq!(docker.run(&["exec", from, "wget", "-qO-", &url]).ok(), to);
        let address = docker.address(to);
        assert!(address.starts_with("10.32.0."), "{address}");
        docker.run(&["exec", from, "ping", "-c", "1", "-W", "2", &address]).ok();
    }
    docker.remove(&["pair-a", "pair-b"]);
}
