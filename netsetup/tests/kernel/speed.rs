//! What a wire costs. The limits are wide, since machines that run tests are slow; the figures are printed.

use std::time::{Duration, Instant};

use crate::lab::{Container, on_a_host, ready_network};

const WIRES: usize = 200;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_wire_is_made_in_about_a_millisecond() {
    on_a_host(|| async {
        let network = ready_network().await;
        let containers: Vec<_> = (0..WIRES).map(|_| Container::start()).collect();
        let (mut connects, mut releases) = (Vec::new(), Vec::new());
        for container in &containers {
            let begin = Instant::now();
            network.connect(&container.spec()).await.unwrap();
            connects.push(begin.elapsed());
            network.release(&container.spec()).await.unwrap();
            releases.push(begin.elapsed() - connects[connects.len() - 1]);
        }
        let (connect, release) = (median(connects), median(releases));
        println!("connect {connect:?}, release {release:?} (medians of {WIRES})");
        assert!(connect + release < Duration::from_millis(20));

        let begin = Instant::now();
        let wires = network.wires().await.unwrap();
        println!("list of {} wires: {:?}", wires.len(), begin.elapsed());

        let begin = Instant::now();
        network.disconnect(&wires).await.unwrap();
        println!("delete {} wires: {:?}", wires.len(), begin.elapsed());

        let begin = Instant::now();
        let jobs = containers[..16].iter().map(|container| async {
            network.connect(&container.spec()).await.unwrap();
            network.release(&container.spec()).await.unwrap();
            begin.elapsed()
        });
        let times = futures_util::future::join_all(jobs).await;
        println!("16 at once: median {:?}, last {:?}", median(times), begin.elapsed());
    });
}

#[test]
fn a_deletion_does_not_stop_the_others() {
    on_a_host(|| async {
        let network = ready_network().await;
        let containers: Vec<_> = (0..100).map(|_| Container::start()).collect();
        let (doomed, rest) = containers.split_at(50);
        for container in doomed {
            network.connect(&container.spec()).await.unwrap();
        }
        let wires = network.wires().await.unwrap();
        let done = std::cell::Cell::new(false);
        let deletion = async {
            let begin = Instant::now();
            network.disconnect(&wires).await.unwrap();
            done.set(true);
            begin.elapsed()
        };
        let connects = async {
            let mut times = Vec::new();
            for container in rest.iter().take_while(|_| !done.get()) {
                let begin = Instant::now();
                network.connect(&container.spec()).await.unwrap();
                times.push(begin.elapsed());
            }
            times
        };
        let (deletion, times) = tokio::join!(deletion, connects);
        println!(
            "deletion of 50: {deletion:?}; meanwhile {} connects, median {:?}, slowest {:?}",
            times.len(),
            median(times.clone()),
            times.iter().max().unwrap(),
        );
    });
}
