//! The settings that concern virtual addresses.

use std::time::Duration;

use ipnet::Ipv4Net;
use selvedge_datapath::pool_claim::overlap;

use super::value::{ConfigError, duration, parse};
use crate::cli::Options;

/// This part of the pool is for virtual addresses, where nothing else is said: a sixteenth, its last.
const SHARE: u8 = 4;

/// Virtual addresses.
#[derive(Debug, Clone)]
pub(crate) struct VipConfig {
    /// The part of the pool that they are taken from; nothing = there are none.
    pub(crate) range: Option<Ipv4Net>,
    /// For how long a container that is to be stopped goes on when all hosts lead new connections to others: for those
    /// that were under way.
    pub(crate) drain: Duration,
}

impl VipConfig {
    pub(super) fn new(
        options: &Options,
        (pool, block_size): (Ipv4Net, u8),
        block: Option<Ipv4Net>,
    ) -> Result<Self, ConfigError> {
        let drain = options.vip_drain.as_deref().unwrap_or("200ms");
        let range = match options.vip_range.as_deref() {
            Some("none") => None,
            Some(text) => Some(parse("vip-range", text, |text| range(text, pool, block))?),
            None => share(pool, block_size).filter(|range| block.is_none_or(|block| !overlap(*range, block))),
        };
        Ok(Self { range, drain: parse("vip-drain", drain, at_most_a_minute)? })
    }
}

/// A pool of less than sixteen blocks is too small to give any away.
fn share(pool: Ipv4Net, block_size: u8) -> Option<Ipv4Net> {
    let length = pool.prefix_len() + SHARE;
    (length <= block_size).then(|| Ipv4Net::new(pool.broadcast(), length).ok())?.map(|range| range.trunc())
}

fn range(text: &str, pool: Ipv4Net, block: Option<Ipv4Net>) -> Result<Ipv4Net, String> {
    let net = text.parse::<Ipv4Net>().ok().filter(|net| net.trunc() == *net && net.prefix_len() <= 30);
    match net {
        Some(net) if !pool.contains(&net) || net == pool => Err(format!("must be a part of the pool {pool}")),
        Some(net) if block.is_some_and(|block| overlap(net, block)) => Err(format!(
            "overlaps this host's block {}",
            block.map(|net| net.to_string()).unwrap_or_default()
        )),
        Some(net) => Ok(net),
        None => Err("must be a network address like 10.47.0.0/16, or none".to_owned()),
    }
}

fn at_most_a_minute(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match time <= Duration::from_secs(60) {
        true => Ok(time),
        false => Err("must be at most 60s".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pool: &str, size: u8, block: Option<&str>, chosen: Option<&str>) -> Result<String, String> {
        let options = Options { vip_range: chosen.map(str::to_owned), ..Options::default() };
        let block = block.map(|block| block.parse().unwrap());
        let config = VipConfig::new(&options, (pool.parse().unwrap(), size), block);
        config
            .map(|config| config.range.map_or_else(|| "none".to_owned(), |range| range.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_sixteenth_of_the_pool_if_it_can_spare_that() {
        assert_eq!(of("10.32.0.0/12", 24, None, None).unwrap(), "10.47.0.0/16");
        assert_eq!(of("10.40.0.0/20", 24, None, None).unwrap(), "10.40.15.0/24");
        assert_eq!(of("10.40.0.0/24", 24, None, None).unwrap(), "none");
        assert_eq!(of("10.32.0.0/12", 24, Some("10.47.3.0/24"), None).unwrap(), "none");
        assert_eq!(of("10.32.0.0/12", 24, None, Some("none")).unwrap(), "none");
        assert_eq!(of("10.32.0.0/24", 28, None, Some("10.32.0.240/28")).unwrap(), "10.32.0.240/28");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for text in ["10.0.0.0/8", "10.47.0.1/16", "10.32.0.0/12", "x", "10.47.0.0/31"] {
            assert!(
                of("10.32.0.0/12", 24, None, Some(text)).unwrap_err().starts_with("--vip-range"),
                "{text}"
            );
        }
        assert!(of("10.32.0.0/12", 24, Some("10.47.3.0/24"), Some("10.47.0.0/16")).is_err());
    }
}
