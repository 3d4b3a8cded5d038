//! Wires go, many at once, and nothing of them stays.

use crate::lab::{Container, on_a_host, ready_network, sh};

#[test]
fn many_wires_go_at_once_and_leave_nothing() {
    on_a_host(|| async {
        let network = ready_network().await;
        let before = (sh("ip -o link | wc -l"), sh("ip route"), sh("ip neigh"));
        let containers: Vec<_> = (0..40).map(|_| Container::start()).collect();
        for container in &containers {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
        }
        let wires = network.wires().await.unwrap();
        assert_eq!(wires.len(), 40);
        network.disconnect(&wires).await.unwrap();
        assert_eq!(network.wires().await.unwrap(), []);
        assert_eq!((sh("ip -o link | wc -l"), sh("ip route"), sh("ip neigh")), before);
        for container in &containers {
            assert_eq!(container.sh("ip route show"), "");
        }
    });
}

#[test]
fn wires_that_are_gone_or_replaced_are_left_alone() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (mut gone, stays) = (Container::start(), Container::start());
        for container in [&gone, &stays] {
            network.connect(&container.spec()).await.unwrap();
        }
        let mut wires = network.wires().await.unwrap();
        sh(&format!("ip link del {}", gone.host_end()));
        gone.restart();
        network.connect(&gone.spec()).await.unwrap();
        wires.retain(|wire| wire.name == gone.host_end());
        network.disconnect(&wires).await.unwrap();
        assert_eq!(network.wires().await.unwrap().len(), 2);
        // An index that is another device's now.
        wires[0].ifindex = 1;
        network.disconnect(&[wires[0].clone(), wires[0].clone()]).await.unwrap();
        sh("ip link show lo");
    });
}

#[test]
fn a_deletion_that_was_begun_is_seen_and_taken_over() {
    on_a_host(|| async {
        let network = ready_network().await;
        let (one, two) = (Container::start(), Container::start());
        for container in [&one, &two] {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
            // As a worker leaves it that died between the mark and the deletion.
            sh(&format!("ip link set {} group {}", container.host_end(), 7001_u32 | 1 << 30));
        }
        let wires = network.wires().await.unwrap();
        assert_eq!(wires.len(), 2);
        assert!(wires.iter().all(|wire| !wire.complete));
        network.connect(&one.spec()).await.unwrap();
        network.release(&one.spec()).await.unwrap();
        let wires = network.wires().await.unwrap();
        let (right, doomed): (Vec<_>, Vec<_>) = wires.into_iter().partition(|wire| wire.complete);
        assert!(right.len() == 1 && right[0].serves(one.pid()));
        network.disconnect(&doomed).await.unwrap();
        assert_eq!(network.wires().await.unwrap(), right);
    });
}

#[test]
fn a_namespace_is_not_kept_alive() {
    on_a_host(|| async {
        let network = ready_network().await;
        for _ in 0..20 {
            let mut container = Container::start();
            for _ in 0..3 {
                network.connect(&container.spec()).await.unwrap();
                network.release(&container.spec()).await.unwrap();
            }
            container.stop();
        }
        // Nobody took the wires out: the kernel does when the last descriptor that leads into a namespace is closed.
        for _ in 0..100 {
            if network.wires().await.unwrap().is_empty() {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("wires of dead containers: {:?}", network.wires().await.unwrap());
    });
}
