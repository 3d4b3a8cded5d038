//! Tenants that grow: containers of many tenants, really created by the engines of several hosts; some of each also run.
//!
//! Used by a suite and, at full size, by the bench. Must never change a setting on the way: that is what it shows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::fleet::{Fleet, Member};
use crate::http;
use crate::reach::{Answer, Place, TCP};

/// How long news may take on a machine that does much else.
const LIMIT: Duration = Duration::from_secs(10);

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub struct Growth {
    /// Tenants.
    pub tenants: usize,
    /// So many containers of each run; the others are only created.
    pub running: usize,
}

fn name(tenant: usize, number: usize) -> String {
    format!("t{tenant}-{number}")
}

fn home(fleet: &Fleet, tenant: usize, number: usize) -> &Member {
    &fleet.members[(tenant + number) % fleet.members.len()]
}

impl Growth {
    /// Creates these containers of each tenant, on all hosts at once.
    ///
    /// # Errors
    /// One cannot be had.
    pub fn grow(self, fleet: &Fleet, numbers: Range<usize>) -> anyhow::Result<()> {
        let share = |member: &Member| {
            let all =
                numbers.clone().flat_map(|number| (0..self.tenants).map(move |tenant| (tenant, number)));
            let own = all.filter(|(tenant, number)| home(fleet, *tenant, *number).name == member.name);
            for (tenant, number) in own {
                create(&member.selvedge.socket(), (tenant, number), number < self.running)?;
            }
            anyhow::Ok(())
        };
        std::thread::scope(|scope| {
            let shares: Vec<_> =
                fleet.members.iter().map(|member| scope.spawn(move || share(member))).collect();
            shares.into_iter().try_for_each(|share| share.join().unwrap_or(Ok(())))
        })
    }

    /// Those that run reach each other over hosts, and nobody else's: a server of each tenant, and a caller, each with each.
    ///
    /// # Errors
    /// Two of one tenant do not reach each other, or two of different ones do.
    pub fn kept_apart(self, fleet: &Fleet) -> anyhow::Result<()> {
        let servers: Vec<(Place, IpAddr)> =
            (0..self.tenants).map(|tenant| place(fleet, tenant, 0)).collect::<Result<_, _>>()?;
        servers.iter().for_each(|(server, _)| server.serve());
        for tenant in 0..self.tenants {
            let (caller, _) = place(fleet, tenant, 1)?;
            for (other, (_, to)) in servers.iter().enumerate() {
                let as_it_should = is_so(caller, *to, other == tenant);
                ensure!(as_it_should, "t{tenant} and t{other} are not as they should be");
            }
        }
        Ok(())
    }
}

/// Whether it becomes so that the address is reached, or not.
fn is_so(caller: Place, to: IpAddr, reached: bool) -> bool {
    let expected = if reached { Answer::Reached } else { Answer::Refused };
    let end = Instant::now() + LIMIT;
    loop {
        if caller.tcp((to, TCP[0]).into()) == expected {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
    }
}

/// Creates one, and starts it.
///
/// # Errors
/// The answer is not what it should be.
pub fn create(socket: &Path, (tenant, number): (usize, usize), start: bool) -> anyhow::Result<()> {
    let body = format!(
        r#"{{"Image":"busybox","Cmd":["sleep","100000"],"Labels":{{"selvedge.tenant":"t{tenant}"}},"HostConfig":{{"NetworkMode":"none"}}}}"#
    );
    let name = name(tenant, number);
    let answer = http::post(socket, &format!("/containers/create?name={name}"), &body)?;
    ensure!(answer.status == 201, "a create was answered with {}: {}", answer.status, answer.text());
    if start {
        let answer = http::post(socket, &format!("/containers/{name}/start"), "")?;
        ensure!(answer.status == 204, "a start was answered with {}: {}", answer.status, answer.text());
    }
    Ok(())
}

/// All addresses that containers have, each once.
#[must_use]
pub fn addresses(fleet: &Fleet) -> BTreeSet<String> {
    let of = |member: &Member| member.selvedge.ps();
    fleet
        .members
        .iter()
        .flat_map(of)
        .filter_map(|shown| shown["address"].as_str().map(str::to_owned))
        .collect()
}

/// How many blocks all hosts have.
#[must_use]
pub fn blocks(fleet: &Fleet) -> usize {
    let of = |member: &Member| member.selvedge.status()["blocks"].as_array().map_or(0, Vec::len);
    fleet.members.iter().map(of).sum()
}

/// Where one runs, and its address.
///
/// # Errors
/// It has none.
pub fn place(fleet: &Fleet, tenant: usize, number: usize) -> anyhow::Result<(Place, IpAddr)> {
    let docker = home(fleet, tenant, number).selvedge.docker();
    let name = name(tenant, number);
    let address = docker.address(&name).parse().with_context(|| format!("{name} has no address"))?;
    Ok((Place::of(&docker, &name), address))
}
