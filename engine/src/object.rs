//! A JSON object of which we touch a few keys and keep every other byte.
//!
//! Values stay raw: a typed model would drop what it does not know, and a value tree rewrites numbers. Go
//! decodes keys without regard to case and lets the last duplicate win, so a key that we read or write must
//! stand there once and in one spelling, or the body would mean one thing to us and another to the engine.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

/// Why a body cannot be understood. The text is for the client.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BodyError {
    /// Not JSON, or not an object.
    #[error("invalid JSON in the request body: {0}")]
    Syntax(String),
    /// A key twice, or in two spellings that mean the same to the engine.
    #[error("the key {0:?} occurs more than once in the request body")]
    Twice(String),
    /// A value of another kind than the engine takes.
    #[error("the value of {key:?} is not valid: {reason}")]
    Kind {
        /// Which key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// A JSON object: its keys in their order, with raw values.
#[derive(Debug, Default, Clone)]
pub struct Object {
    fields: Vec<(String, Box<RawValue>)>,
}

impl Object {
    /// Parses an object. What is no UTF-8 becomes U+FFFD, as for Go.
    ///
    /// # Errors
    /// [`BodyError::Syntax`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let text = String::from_utf8_lossy(bytes);
        serde_json::from_str(&text).map_err(|error| BodyError::Syntax(error.to_string()))
    }

    /// Makes sure that each of these keys stands there at most once, and spells it as we do.
    ///
    /// # Errors
    /// [`BodyError::Twice`].
    pub fn settle(&mut self, keys: &[&str]) -> Result<(), BodyError> {
        keys.iter().try_for_each(|key| self.settle_one(key))
    }

    fn settle_one(&mut self, key: &str) -> Result<(), BodyError> {
        let folded = fold(key);
        let mut same = self.fields.iter_mut().filter(|(name, _)| fold(name) == folded);
        if let Some((name, _)) = same.next() {
            key.clone_into(name);
        }
        match same.next() {
            Some(_) => Err(BodyError::Twice(key.to_owned())),
            None => Ok(()),
        }
    }

    /// The raw value of a key, if it is there and not null.
    pub fn raw(&self, key: &str) -> Option<&RawValue> {
        self.fields
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| &**value)
            .filter(|v| v.get() != "null")
    }

    /// A value as `T`; `None` when absent or null.
    ///
    /// # Errors
    /// [`BodyError::Kind`].
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, BodyError> {
        let Some(raw) = self.raw(key) else { return Ok(None) };
        let parsed = serde_json::from_str(raw.get());
        parsed.map(Some).map_err(|error| BodyError::Kind { key: key.to_owned(), reason: error.to_string() })
    }

    /// Puts a value in the place of the one there, or at the end.
    pub fn set_raw(&mut self, key: &str, value: Box<RawValue>) {
        match self.fields.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.fields.push((key.to_owned(), value)),
        }
    }

    /// Puts a value in the place of the one there, or at the end.
    pub fn set(&mut self, key: &str, value: &impl Serialize) {
        // Only plain data of ours is written (strings, lists, maps with string keys), which always serializes.
        if let Ok(raw) = serde_json::value::to_raw_value(value) {
            self.set_raw(key, raw);
        }
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) {
        self.fields.retain(|(name, _)| name != key);
    }

    /// Whether the key is there at all, null or not.
    pub fn has(&self, key: &str) -> bool {
        self.fields.iter().any(|(name, _)| name == key)
    }

    /// Changes an object below this one; nothing happens when it is absent or null.
    ///
    /// # Errors
    /// [`BodyError::Kind`] when it is not an object.
    pub fn edit(&mut self, key: &str, change: impl FnOnce(&mut Self)) -> Result<(), BodyError> {
        if let Some(mut inner) = self.get::<Self>(key)? {
            change(&mut inner);
            self.set(key, &inner);
        }
        Ok(())
    }

    /// All keys with their raw values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// Lets only the keys stay that pass.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.fields.retain(|(name, _)| keep(name));
    }

    /// As JSON text.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What Go's `encoding/json` takes for the same key: simple case folding, of which two letters outside ASCII
/// fold into it (the long s and the Kelvin sign).
fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (key, value) in &self.fields {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Object;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(0));
        while let Some(field) = map.next_entry::<String, Box<RawValue>>()? {
            fields.push(field);
        }
        Ok(Object { fields })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_ours_passes_byte_for_byte() {
        let text = r#"{"a":1.10,"B":[1e2, 123456789012345678901234567890],"c":"\u00e9\/","d":{"x" : null}}"#;
        let mut object = Object::parse(text.as_bytes()).unwrap();
        object.set("new", &"x");
        let expected = text.replace("}}", "}") + r#","new":"x"}"#;
        assert_eq!(String::from_utf8(object.to_bytes()).unwrap(), expected);
    }

    #[test]
    fn keys_that_the_engine_takes_for_one_are_one() {
        let mut object = Object::parse(br#"{"hostconfig":{},"x":1,"X":2}"#).unwrap();
        object.settle(&["HostConfig"]).unwrap();
        assert!(object.has("HostConfig"));
        for body in [r#"{"Image":"a","IMAGE":"b"}"#, r#"{"Image":"a","Image":"b"}"#] {
            assert_eq!(
                Object::parse(body.as_bytes()).unwrap().settle(&["Image"]),
                Err(BodyError::Twice("Image".into()))
            );
        }
        let mut kelvin = Object::parse("{\"NetworkMode\":1,\"Networ\u{212a}Mode\":2}".as_bytes()).unwrap();
        assert!(kelvin.settle(&["NetworkMode"]).is_err());
    }

    #[test]
    fn bodies_that_are_no_objects_are_told() {
        for body in ["", "[", "[]", "1", "{\"a\":1}x", "{\"a\":\"\u{0}\"}"] {
            assert!(matches!(Object::parse(body.as_bytes()), Err(BodyError::Syntax(_))), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(object) = Object::parse(&bytes) {
                prop_assert!(Object::parse(&object.to_bytes()).is_ok());
            }
        }

        #[test]
        fn untouched_values_come_back_as_they_were(values in proptest::collection::vec("[0-9]{1,40}|[1-9]e[0-9]{1,2}|\"[a-z]{0,8}\"", 0..8)) {
            let body = format!("{{{}}}", values.iter().enumerate().map(|(i, v)| {
                let v = if v.len() > 1 && v.starts_with('0') { "0" } else { v };
                format!("\"k{i}\":{v}")
            }).collect::<Vec<_>>().join(","));
            prop_assert_eq!(Object::parse(body.as_bytes()).unwrap().to_bytes(), body.into_bytes());
        }
    }
}
