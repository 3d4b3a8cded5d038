//! Why a container has no wire, for the user who expected one. It must never speak of a container that no user would
//! expect to have one.

use std::collections::HashMap;

use crate::label::{LABEL, OWN_PREFIX};

/// The reason, if labels of ours are on it or Compose put it on a network of its project; nothing where no wire was asked for.
pub fn reason(mode: &str, labels: &HashMap<String, String>) -> Option<String> {
    let label = |key: &str| labels.get(key).map(String::as_str).filter(|value| !value.is_empty());
    if label(LABEL).is_some() || label("selvedge.network") == Some("none") {
        return None;
    }
    let wishes = labels.keys().any(|key| key.starts_with("selvedge.") && !key.starts_with(OWN_PREFIX));
    let project = label("com.docker.compose.project");
    let of_compose = project.is_some_and(|project| mode.starts_with(&format!("{project}_")));
    if !wishes && !of_compose {
        return None;
    }
    Some(match mode {
        "host" => "network mode host: it has the host's own network".to_owned(),
        "" | "default" | "bridge" | "none" => {
            "it was not made through Selvedge, or has WEAVE_CIDR=none or no command".to_owned()
        }
        mode if mode.starts_with("container:") => {
            "network mode container: it has that container's network, and its wire".to_owned()
        }
        mode => format!(
            "user-defined network {mode}: only with --wire-user-networks or label selvedge.network=default at its create"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: &str, labels: &[(&str, &str)]) -> Option<String> {
        reason(mode, &labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn labels_on_a_container_without_a_wire_are_told_with_the_reason() {
        let name = ("selvedge.name", "db");
        assert!(
            of("mine", &[name])
                .unwrap()
                .contains("network mine: only with --wire-user-networks or label selvedge.network=default")
        );
        assert!(of("host", &[name]).unwrap().starts_with("network mode host"));
        assert!(of("container:abc", &[name]).unwrap().starts_with("network mode container"));
        assert!(of("bridge", &[name]).unwrap().starts_with("it was not made through Selvedge"));
        let project = ("com.docker.compose.project", "shop");
        assert!(of("shop_default", &[project]).is_some() && of("shop_back", &[project]).is_some());
        assert!(of("other_default", &[project]).is_none());
    }

    #[test]
    fn one_that_nobody_expects_to_have_a_wire_is_not_told_of() {
        assert_eq!(of("mine", &[("other", "x")]), None);
        assert_eq!(of("bridge", &[("selvedge.network", "none"), ("selvedge.name", "db")]), None);
        assert_eq!(of("bridge", &[(LABEL, "{}"), ("selvedge.name", "db")]), None);
        assert_eq!(of("bridge", &[(LABEL, "")]), None);
    }
}
