//! Name servers for all names that are not ours. Reads a PEM file, and touches nothing else.

use std::net::{IpAddr, SocketAddr};

use selvedge_dns::Secured;

use super::value::{ConfigError, parse, pem};
use crate::cli::Options;

/// The port of DNS, and that of DNS by TLS (RFC 7858 section 3.1).
const PORTS: [u16; 2] = [53, 853];

/// Name servers for all names that are not ours.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpstreamConfig {
    /// In their order; empty: the engine's own setting, else the host's.
    pub(crate) servers: Vec<SocketAddr>,
    /// Those of them that are asked by TLS.
    pub(crate) secured: Vec<Secured>,
    /// Who may have signed their certificates, as PEM, if not those that the host trusts.
    pub(crate) authorities: Option<String>,
}

impl UpstreamConfig {
    pub(super) fn new(options: &Options) -> Result<Self, ConfigError> {
        let authorities = pem("dns-upstream-ca", options.dns_upstream_ca.as_deref())?;
        let mut config = Self { authorities, ..Self::default() };
        for text in &options.dns_upstream {
            let (address, name) = parse("dns-upstream", text.trim(), server)?;
            config.servers.push(address);
            config.secured.extend(name.map(|name| Secured { address, name }));
        }
        Ok(config)
    }
}

/// `192.0.2.1`, `192.0.2.1:5353`, `tls://9.9.9.9`, `tls://9.9.9.9:853#dns.quad9.net`: the address, and whose certificate it is
/// to have.
fn server(text: &str) -> Result<(SocketAddr, Option<String>), String> {
    let wrong =
        "must be an IP address, one with a port like 192.0.2.1:5353, or tls://192.0.2.1#dns.example.com";
    let address = |text: &str, port| {
        let bare = || text.trim_matches(['[', ']']).parse::<IpAddr>().map(|ip| SocketAddr::new(ip, port));
        text.parse::<SocketAddr>().or_else(|_| bare()).map_err(|_| wrong.to_owned())
    };
    let Some(secured) = text.strip_prefix("tls://") else { return Ok((address(text, PORTS[0])?, None)) };
    let (server, name) = secured.split_once('#').unwrap_or((secured, ""));
    let server = address(server, PORTS[1])?;
    // Without a name the certificate is to be for the address itself.
    let name = if name.is_empty() { server.ip().to_string() } else { name.to_owned() };
    Ok((server, Some(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_by_tls_where_the_user_says_so() {
        let read = |text: &str| {
            server(text)
                .map(|(address, name)| format!("{address} {}", name.unwrap_or_else(|| "-".to_owned())))
        };
        for (text, meaning) in [
            ("192.0.2.1", "192.0.2.1:53 -"),
            ("192.0.2.1:5353", "192.0.2.1:5353 -"),
            ("fd00::1", "[fd00::1]:53 -"),
            ("tls://9.9.9.9#dns.quad9.net", "9.9.9.9:853 dns.quad9.net"),
            ("tls://9.9.9.9:8853", "9.9.9.9:8853 9.9.9.9"),
            ("tls://[2620:fe::fe]#dns.quad9.net", "[2620:fe::fe]:853 dns.quad9.net"),
            ("tls://[2620:fe::fe]:53", "[2620:fe::fe]:53 2620:fe::fe"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(meaning), "{text}");
        }
        for text in
            ["dns.quad9.net", "tls://dns.quad9.net", "tls://", "https://9.9.9.9", "9.9.9.9#dns.quad9.net", ""]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
