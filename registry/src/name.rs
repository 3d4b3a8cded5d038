//! A validated, lower-cased DNS name, kept in wire form, so that a question can be looked up without conversion. It
//! must never hold a byte that a host name cannot have, or exceed the limits of RFC 1035.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// RFC 1035 section 2.3.4: a label has at most 63 bytes.
pub const MAX_LABEL: usize = 63;
/// RFC 1035 section 2.3.4: a name has at most 255 bytes on the wire, including length bytes and the root's zero.
pub const MAX_WIRE: usize = 255;

/// How many bytes a mangled label keeps before its hash (`-` and 8 hexadecimal digits): 54 + 9 = 63.
const KEPT_OF_LONG_LABEL: usize = MAX_LABEL - 9;

/// A DNS name in lower case, relative (`db.shop`) or absolute (`db.shop.selvedge.internal.`).
///
/// The order is that of the wire bytes, which is total but not the canonical order of DNSSEC.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Length byte and bytes of each label; an absolute name ends with the zero byte of the root.
    wire: Box<[u8]>,
}

impl Name {
    /// Parses a name; a trailing dot makes it absolute, and `.` alone is the root.
    ///
    /// # Errors
    /// [`Error`] when a label is empty or too long, the name is too long, or a character is not allowed in a host name.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text == "." {
            return Ok(Self { wire: Box::new([0]) });
        }
        let (body, absolute) = match text.strip_suffix('.') {
            Some(body) => (body, true),
            None => (text, false),
        };
        if let Some(character) = text.chars().find(|c| *c != '.' && !allowed(*c)) {
            return Err(Error::Character { name: text.to_owned(), character });
        }
        Self::build(body.split('.'), absolute, text)
    }

    /// The name of a Marathon app: the parts of its path in reverse order, so `/shop/db` is `db.shop`.
    ///
    /// A part stays one label whatever it contains (`/shop/db.v2` is `db-v2.shop`), so that the tree of names is the
    /// tree of groups. Marathon allows `[a-z0-9.-]` in a part and `..`-relative ids, which never get here.
    ///
    /// # Errors
    /// [`Error::EmptyLabel`] when the id has no part, [`Error::NameTooLong`] when it is too deep.
    pub fn from_app_id(id: &str) -> Result<Self, Error> {
        let labels: Vec<String> = id.split('/').rev().map(mangled_label).filter(|l| !l.is_empty()).collect();
        Self::build(labels.iter().map(String::as_str), false, id)
    }

    /// A Marathon app as one label, in the style of Mesos-DNS: `/shop/db` is `db-shop`.
    ///
    /// # Errors
    /// [`Error::EmptyLabel`] when the id has no part.
    pub fn from_app_id_flat(id: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = id.split('/').rev().filter(|part| !part.is_empty()).collect();
        let label = mangled_label(&parts.join("-"));
        Self::build([label.as_str()], false, id)
    }

    /// The closest valid DNS name for any text, such as a container's name or a host name.
    ///
    /// Docker allows `[a-zA-Z0-9][a-zA-Z0-9_.-]` in container names: all of it is valid here, except for empty labels,
    /// which are left out. Other characters become `-`. A label that is too long (Mesos makes some) is cut and gets a
    /// hash of the whole label, so that two long ones stay different.
    ///
    /// # Errors
    /// [`Error::EmptyLabel`] when nothing is left, [`Error::NameTooLong`] when the whole is too long.
    pub fn mangle(text: &str) -> Result<Self, Error> {
        let labels: Vec<String> = text.split('.').map(mangled_label).filter(|l| !l.is_empty()).collect();
        Self::build(labels.iter().map(String::as_str), false, text)
    }

    /// This name below `domain`: `db` within `selvedge.internal.` is `db.selvedge.internal.`. An absolute name stays as
    /// it is. The result is always absolute.
    ///
    /// # Errors
    /// [`Error::NameTooLong`] when both together exceed 255 bytes.
    pub fn within(&self, domain: &Self) -> Result<Self, Error> {
        if self.is_absolute() {
            return Ok(self.clone());
        }
        let mut wire = Vec::with_capacity(self.wire.len() + domain.wire.len() + 1);
        wire.extend_from_slice(&self.wire);
        wire.extend_from_slice(&domain.wire);
        if !domain.is_absolute() {
            wire.push(0);
        }
        if wire.len() > MAX_WIRE {
            return Err(Error::NameTooLong(format!("{self}.{domain}")));
        }
        Ok(Self { wire: wire.into() })
    }

    /// The name of one label, in lower case, in front of an absolute name's wire bytes; none if it is too long.
    #[must_use]
    pub fn below(label: &[u8], wire: &[u8]) -> Option<Self> {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..=MAX_LABEL).contains(&usize::from(*length)))?;
        let wire: Box<[u8]> = [&[length], label, wire].concat().into();
        (wire.len() <= MAX_WIRE).then_some(Self { wire })
    }

    /// The same name with a trailing dot.
    #[must_use]
    pub fn into_absolute(self) -> Self {
        if self.is_absolute() {
            return self;
        }
        let mut wire = self.wire.into_vec();
        wire.push(0);
        Self { wire: wire.into() }
    }

    /// The bytes on the wire, in lower case; they end with the root's zero byte exactly if the name is absolute.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// Whether the name ends at the root.
    #[must_use]
    pub fn is_absolute(&self) -> bool {
        self.wire.last() == Some(&0)
    }

    /// The labels from left to right, without the root's empty one.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let mut rest = &self.wire[..];
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first().filter(|(length, _)| **length != 0)?;
            let (label, tail) = after.split_at(usize::from(*length));
            rest = tail;
            // Only ASCII is ever stored, so this is always Some.
            std::str::from_utf8(label).ok()
        })
    }

    /// Whether this is `ancestor` or a name below it. Meaningful only if both are absolute.
    #[must_use]
    pub fn is_within(&self, ancestor: &Self) -> bool {
        std::iter::successors(Some(&self.wire[..]), |wire| parent(wire))
            .any(|wire| wire == &ancestor.wire[..])
    }

    fn build<'a>(
        labels: impl IntoIterator<Item = &'a str>,
        absolute: bool,
        text: &str,
    ) -> Result<Self, Error> {
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in labels {
            let length = match label.len() {
                0 => return Err(Error::EmptyLabel(text.to_owned())),
                length if length > MAX_LABEL => return Err(Error::LabelTooLong(label.to_owned())),
                length => u8::try_from(length).map_err(|_| Error::LabelTooLong(label.to_owned()))?,
            };
            wire.push(length);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        if wire.is_empty() {
            return Err(Error::EmptyLabel(text.to_owned()));
        }
        // A relative name still needs room for the root.
        if wire.len() + 1 > MAX_WIRE {
            return Err(Error::NameTooLong(text.to_owned()));
        }
        if absolute {
            wire.push(0);
        }
        Ok(Self { wire: wire.into() })
    }
}

/// The wire bytes of the name one label up; none above the root (and above a relative name's last label).
#[must_use]
pub fn parent(wire: &[u8]) -> Option<&[u8]> {
    let (length, _) = wire.split_first().filter(|(length, _)| **length != 0)?;
    wire.get(1 + usize::from(*length)..).filter(|rest| !rest.is_empty())
}

fn allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

/// Turns the next label of `text` into a valid one, at most 63 bytes; empty only if the text is.
fn mangled_label(text: &str) -> String {
    let mut label: String =
        text.chars().map(|c| if allowed(c) { c.to_ascii_lowercase() } else { '-' }).collect();
    if label.len() > MAX_LABEL {
        label.truncate(KEPT_OF_LONG_LABEL);
        label = format!("{label}-{:08x}", fnv1a(text.to_ascii_lowercase().as_bytes()));
    }
    label
}

/// FNV-1a, 32 bits: implemented here because the names made with it must be the same on all hosts, for ever.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for label in self.labels() {
            write!(f, "{separator}{label}")?;
            separator = ".";
        }
        if self.is_absolute() { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

#[cfg(test)]
mod tests;
