//! Whatever hosts do in whatever order, no block ever has two owners.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::Ipv4Net;
use proptest::prelude::*;
use selvedge_cluster::handle::Kind;
use selvedge_cluster::store::memory::Memory;

use crate::lab::{Host, Lab, Wanted};

/// What a host may do.
#[derive(Debug, Clone)]
enum Act {
    Claim(usize),
    GiveBack(usize),
    /// Its worker is killed, and another one begins, which knows only what the registry says.
    Restart(usize),
    /// Another one begins that remembers its blocks, as the kernel does.
    RestartRemembering(usize),
    /// Everything is deleted under their hands.
    Empty,
}

fn act() -> impl Strategy<Value = Act> {
    let host = 0..4_usize;
    prop_oneof![
        6 => host.clone().prop_map(Act::Claim),
        2 => host.clone().prop_map(Act::GiveBack),
        2 => host.clone().prop_map(Act::Restart),
        2 => host.prop_map(Act::RestartRemembering),
        1 => Just(Act::Empty),
    ]
}

fn wanted() -> Wanted {
    // Eight blocks for four hosts: they meet often.
    Wanted { pool: "10.32.0.0/24", block_size: 27, ..Wanted::default() }
}

fn name(number: usize) -> String {
    format!("h{number}")
}

/// What each host believes that it may hand out.
type Owned = BTreeMap<usize, BTreeSet<Ipv4Net>>;

async fn play(acts: Vec<Act>) -> Result<(), TestCaseError> {
    let lab = Lab { registry: Kind::Local(Memory::default()) };
    let mut hosts: Vec<Host> = Vec::new();
    for number in 0..4 {
        hosts.push(lab.host_with(&name(number), wanted()).await);
    }
    let mut owned = Owned::new();
    for act in acts {
        match act {
            Act::Claim(number) => {
                if let Ok(block) = hosts[number].cluster.claim_block(None).await {
                    owned.entry(number).or_default().insert(block);
                }
            }
            Act::GiveBack(number) => {
                if let Some(block) = owned.get_mut(&number).and_then(BTreeSet::pop_first) {
                    hosts[number].cluster.give_back(block);
                }
            }
            Act::Restart(number) => hosts[number] = lab.host_with(&name(number), wanted()).await,
            Act::RestartRemembering(number) => {
                let blocks = owned.get(&number).cloned().unwrap_or_default();
                hosts[number] = lab.host_with(&name(number), Wanted { blocks, ..wanted() }).await;
            }
            Act::Empty => {
                let raw = lab.raw().await;
                for block in owned.values().flatten() {
                    raw.delete(&format!("blocks/{}-{}", block.network(), block.prefix_len())).await;
                }
                // Hosts that live write themselves down again; this is the time that they take.
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        check(&owned)?;
    }
    Ok(())
}

fn check(owned: &Owned) -> Result<(), TestCaseError> {
    let mut seen = BTreeMap::new();
    for (host, blocks) in owned {
        for block in blocks {
            if let Some(other) = seen.insert(*block, *host) {
                return Err(TestCaseError::fail(format!("{block} belongs to {other} and {host}")));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_block_has_two_owners(acts in proptest::collection::vec(act(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(acts))?;
    }
}
