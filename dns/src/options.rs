//! Options in the OPT record of an answer: which server gave it (RFC 5001), and why it is what it is (RFC 8914).
//!
//! Must never make an answer longer than its asker takes, nor add an option for an asker that does not speak EDNS.

use crate::query::{OPT_LENGTH, Query, kind, word};

/// The option that names the server (RFC 5001 section 2.3).
pub(crate) const NSID: u16 = 3;
/// The option that explains (RFC 8914 section 2).
pub(crate) const EXTENDED_ERROR: u16 = 15;

/// An explanation: a code of RFC 8914 section 4, and text for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Why {
    code: u16,
    text: &'static str,
}

impl Why {
    /// Too many questions of this asker, or of all, wait for an answer.
    pub(crate) const TOO_MANY: Self = Self { code: 0, text: "too many questions are under way" };
    /// No name server has answered in time; this is what one said before.
    pub(crate) const STALE: Self = Self { code: 3, text: "no name server answers; this is its last answer" };
    /// The registry has not been read yet.
    pub(crate) const NOT_READY: Self = Self { code: 14, text: "the names of other hosts are not known yet" };
    /// The policy hides the name from this asker.
    pub(crate) const PROHIBITED: Self = Self { code: 18, text: "the name is another tenant's" };
    /// All name servers were silent, or did not know.
    pub(crate) const NO_SERVER: Self = Self { code: 22, text: "no name server answered" };
    /// No name server could be reached.
    pub(crate) const NETWORK: Self = Self { code: 23, text: "no name server can be reached" };
}

/// The OPT record at the end of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt {
    /// Where the length of its options is.
    length_at: usize,
}

impl Opt {
    /// That of an answer which ends with an OPT record without options.
    pub(crate) fn bare(answer: &[u8]) -> Option<Self> {
        let start = answer.len().checked_sub(OPT_LENGTH)?;
        let is_opt = answer[start] == 0 && word(answer, start + 1) == Some(kind::OPT);
        (is_opt && word(answer, answer.len() - 2) == Some(0)).then_some(Self { length_at: answer.len() - 2 })
    }

    /// That whose class is at this place, if it is the last record.
    pub(crate) fn last(answer: &[u8], class_at: usize) -> Option<Self> {
        let length_at = class_at + 6;
        let length = usize::from(word(answer, length_at)?);
        (length_at + 2 + length == answer.len()).then_some(Self { length_at })
    }

    /// Says why, and which server this is where the asker wants to know.
    pub(crate) fn complete(
        self,
        query: &Query,
        (server, why): (&str, Option<Why>),
        limit: usize,
        answer: &mut Vec<u8>,
    ) {
        if let Some(why) = why {
            self.add(answer, limit, EXTENDED_ERROR, &[&why.code.to_be_bytes(), why.text.as_bytes()]);
        }
        if query.edns.is_some_and(|edns| edns.asks_server) {
            self.add(answer, limit, NSID, &[server.as_bytes()]);
        }
    }

    fn add(self, answer: &mut Vec<u8>, limit: usize, option: u16, data: &[&[u8]]) {
        let length: usize = data.iter().map(|part| part.len()).sum();
        let before = usize::from(word(answer, self.length_at).unwrap_or(0));
        let whole = u16::try_from(before + 4 + length).ok().filter(|_| answer.len() + 4 + length <= limit);
        let (Some(whole), Ok(length)) = (whole, u16::try_from(length)) else { return };
        answer[self.length_at..self.length_at + 2].copy_from_slice(&whole.to_be_bytes());
        for number in [option, length] {
            answer.extend_from_slice(&number.to_be_bytes());
        }
        data.iter().for_each(|part| answer.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::rr::rdata::opt::EdnsCode;

    use super::*;
    use crate::query::{Edns, IN, WireName, rcode};

    fn query() -> Query {
        let name = WireName::read(b"\x02db\0", 0).unwrap();
        let edns = Some(Edns { size: 1232, dnssec_ok: true, asks_server: true });
        Query { id: 1, flags: 0x100, name, lower: name, kind: kind::A, class: IN, edns }
    }

    fn answer() -> Vec<u8> {
        let (query, mut out) = (query(), Vec::new());
        query.bare_reply(query.reply_flags(rcode::SERVFAIL), &mut out);
        out
    }

    #[test]
    fn an_answer_names_its_server_and_says_why() {
        let mut out = answer();
        Opt::bare(&out).unwrap().complete(&query(), ("host7", Some(Why::NO_SERVER)), 512, &mut out);
        let edns = Message::from_vec(&out).unwrap().edns.unwrap();
        let option = |code: u16| edns.option(EdnsCode::from(code)).unwrap();
        assert_eq!(Vec::<u8>::try_from(option(NSID)).unwrap(), b"host7");
        let why = Vec::<u8>::try_from(option(EXTENDED_ERROR)).unwrap();
        assert_eq!(why, [&[0, 22][..], b"no name server answered"].concat());
        assert!(edns.flags().dnssec_ok);
    }

    #[test]
    fn what_has_no_room_is_left_out() {
        let whole = answer();
        let mut out = whole.clone();
        let opt = Opt::bare(&out).unwrap();
        opt.complete(&query(), ("host7", Some(Why::NO_SERVER)), whole.len() + 8, &mut out);
        assert_eq!(out, whole);
        opt.complete(&query(), ("host7", Some(Why::NO_SERVER)), whole.len() + 9, &mut out);
        assert_eq!(out.len(), whole.len() + 9);
    }

    #[test]
    fn an_answer_without_an_opt_record_at_its_end_has_no_place_for_one() {
        let out = answer();
        assert!(Opt::bare(&out[..out.len() - OPT_LENGTH]).is_none() && Opt::bare(&[]).is_none());
        let class_at = out.len() - 8;
        assert!(Opt::last(&out, class_at).is_some());
        assert!(Opt::last(&[&out[..], b"x"].concat(), class_at).is_none() && Opt::last(&out, 4000).is_none());
    }
}
