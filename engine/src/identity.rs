//! How the engine introduces itself in every answer, so that our own answers do the same.
//!
//! Learnt from the answers to our own calls. Must never hold anything else of an answer.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::HeaderMap;

/// The fields that the engine's middleware puts into every answer.
const NAMES: [&str; 4] = ["Api-Version", "Docker-Experimental", "Ostype", "Server"];

/// The engine's introduction, shared by all who answer in its place.
#[derive(Debug, Clone)]
pub struct Identity(Arc<RwLock<Arc<str>>>);

impl Default for Identity {
    /// What holds for every engine that we can stand in front of.
    fn default() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let fields =
            format!("Docker-Experimental: false\r\nOstype: linux\r\nServer: Selvedge/{version} (linux)\r\n");
        Self(Arc::new(RwLock::new(fields.into())))
    }
}

impl Identity {
    /// Takes in the head of one of the engine's answers; one that does not introduce itself changes nothing.
    pub fn learn(&self, head: &HeaderMap) {
        let lines = NAMES.iter().filter_map(|name| Some((name, head.get(*name)?.to_str().ok()?)));
        let fields: String = lines.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        if !head.contains_key(NAMES[0]) || *self.fields() == *fields {
            return;
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = fields.into();
    }

    /// The version of its API, once it is known.
    pub fn api(&self) -> Option<(u32, u32)> {
        let fields = self.fields();
        let version = fields.lines().find_map(|line| line.strip_prefix("Api-Version: "))?;
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// The fields as they stand in a head.
    pub fn fields(&self) -> Arc<str> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_introduction_counts() {
        let identity = Identity::default();
        assert!(identity.fields().contains("Ostype: linux\r\n"));
        let mut head = HeaderMap::new();
        head.insert("content-type", "application/json".parse().unwrap());
        identity.learn(&head);
        assert!(identity.fields().contains("Selvedge"));
        head.insert("api-version", "1.41".parse().unwrap());
        head.insert("server", "Docker/20.10 (linux)".parse().unwrap());
        identity.learn(&head);
        assert_eq!(identity.api(), Some((1, 41)));
        assert_eq!(&*identity.fields(), "Api-Version: 1.41\r\nServer: Docker/20.10 (linux)\r\n");
    }
}
