//! What was refused, and by what: the sets of the table that count it, and their elements. Pure.
//!
//! A chain that refuses counts twice: by the two ends alone, and by all that is known of the call. A port scan fills the
//! second set only. Must never give a set of another type an old name: nft cannot change a type.

use std::net::IpAddr;

use serde::Deserialize;

/// Calls of one kind that were refused, in the last day.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// The caller: it opened the connection.
    pub from: IpAddr,
    /// The called address.
    pub to: IpAddr,
    /// The call; `None` when only the two ends are known.
    pub call: Option<Call>,
}

/// What a refused packet was for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Call {
    /// `tcp`, `udp`, `icmp`, or a number.
    pub protocol: String,
    /// The called port as the called one has it, behind any DNAT; none for protocols other than TCP and UDP.
    pub port: Option<u16>,
    /// What refused it.
    pub rule: Rule,
}

/// What refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// None of the called container's grants lets the caller in.
    Grants,
    /// Hosts and containers may not call each other.
    Host,
    /// Containers may not call out of the pool.
    Out,
    /// Containers may not ask for names.
    Names,
    /// No container has the called address, as far as this host knows.
    Unknown,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Grants, Self::Host, Self::Out, Self::Names, Self::Unknown];

    /// The number that stands for it in the kernel, and between hosts: never another's.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Grants => 1,
            Self::Host => 2,
            Self::Out => 3,
            Self::Names => 4,
            Self::Unknown => 5,
        }
    }

    /// The chain that counts and refuses for it.
    pub(super) fn chain(self) -> &'static str {
        match self {
            Self::Grants => "refused",
            Self::Host => "refused_host",
            Self::Out => "refused_out",
            Self::Names => "refused_names",
            Self::Unknown => "refused_unknown",
        }
    }
}

/// The sets of one family that count, as nft declares them.
pub(super) fn sets(end: &str, kind: &str) -> [(String, String); 2] {
    let counting = "flags dynamic, timeout; timeout 1d; size 16384; counter;";
    [
        (format!("refused{end}"), format!("set {{}} {{ type {kind} . {kind}; {counting} }}")),
        (
            format!("denied{end}"),
            format!("set {{}} {{ type {kind} . {kind} . inet_proto . inet_service . mark; {counting} }}"),
        ),
    ]
}

/// The rules that count in one family.
pub(super) fn counting(rule: Rule, (end, ip): (&str, &str), family: &str) -> [String; 3] {
    let ends = format!("ct original {ip} saddr . ct reply {ip} saddr");
    let number = rule.number();
    [
        format!("meta nfproto {family} update @refused{end} {{ {ends} }}"),
        format!(
            "meta nfproto {family} meta l4proto {{ tcp, udp }} update @denied{end} \
             {{ {ends} . meta l4proto . ct reply proto-src . {number} }}"
        ),
        format!(
            "meta nfproto {family} meta l4proto != {{ tcp, udp }} update @denied{end} \
             {{ {ends} . meta l4proto . 0 . {number} }}"
        ),
    ]
}

/// The set of ended containers' names, by their addresses.
pub(super) const FORMER: &str = "former4";

/// Which elements stand for it, each with the set's name.
pub(super) fn elements(refusal: &Refusal) -> Vec<(String, String)> {
    let Refusal { from, to, call } = refusal;
    let end = if from.is_ipv4() { "4" } else { "6" };
    let mut elements = vec![(format!("refused{end}"), format!("{from} . {to}"))];
    elements.extend(call.as_ref().map(|Call { protocol, port, rule }| {
        let protocol = if protocol == "icmp6" { "ipv6-icmp" } else { protocol };
        let (port, number) = (port.unwrap_or(0), rule.number());
        (format!("denied{end}"), format!("{from} . {to} . {protocol} . {port} . {number}"))
    }));
    elements
}

/// The key of an element, as nft lists it.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    concat: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Part {
    Address(IpAddr),
    Number(u32),
    Word(String),
}

impl Key {
    /// What it says; nothing for a key that is none of ours.
    pub(super) fn read(self) -> Option<Refusal> {
        match &self.concat[..] {
            [Part::Address(from), Part::Address(to)] => Some(Refusal { from: *from, to: *to, call: None }),
            [Part::Address(from), Part::Address(to), protocol, port, Part::Number(number)] => {
                let rule = Rule::ALL.into_iter().find(|rule| rule.number() == *number)?;
                let port = Some(port.number()?).filter(|port| *port != 0);
                let call = Call { protocol: protocol.text(), port, rule };
                Some(Refusal { from: *from, to: *to, call: Some(call) })
            }
            _ => None,
        }
    }
}

impl Part {
    /// nft gives a protocol by its name where this machine knows one.
    fn text(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Number(6) => "tcp".to_owned(),
            Self::Number(17) => "udp".to_owned(),
            Self::Number(1) => "icmp".to_owned(),
            Self::Number(58) => "icmp6".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Word(word) if word == "ipv6-icmp" => "icmp6".to_owned(),
            Self::Word(word) => word.clone(),
        }
    }

    fn number(&self) -> Option<u16> {
        match self {
            Self::Number(number) => u16::try_from(*number).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(concat: &str) -> Option<Refusal> {
        serde_json::from_str::<Key>(&format!("{{\"concat\":{concat}}}")).unwrap().read()
    }

    #[test]
    fn keys_are_read_as_nft_prints_them() {
        let (from, to) = ("10.32.0.1".parse().unwrap(), "10.32.0.2".parse().unwrap());
        let call = |protocol: &str, port, rule| {
            Some(Refusal { from, to, call: Some(Call { protocol: protocol.to_owned(), port, rule }) })
        };
        let cases = [
            (r#"["10.32.0.1","10.32.0.2"]"#, Some(Refusal { from, to, call: None })),
            (r#"["10.32.0.1","10.32.0.2","tcp",81,1]"#, call("tcp", Some(81), Rule::Grants)),
            (r#"["10.32.0.1","10.32.0.2",17,53,4]"#, call("udp", Some(53), Rule::Names)),
            (r#"["10.32.0.1","10.32.0.2","icmp",0,5]"#, call("icmp", None, Rule::Unknown)),
            (r#"["10.32.0.1","10.32.0.2","tcp",81,77]"#, None),
            (r#"["10.32.0.1","tcp"]"#, None),
        ];
        for (concat, expected) in cases {
            assert_eq!(read(concat), expected, "{concat}");
        }
    }
}
