//! The tenant of a container: what its label says, else the group of its Marathon app, else Nomad's namespace or job, else its
//! Compose project. Pure.

use selvedge_registry::allow;
use selvedge_registry::record::DEFAULT_TENANT;

/// Where a tenant comes from, in the order in which it counts.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Label `selvedge.tenant`.
    pub label: Option<&'a str>,
    /// `MARATHON_APP_ID`: `/shop/front/web`.
    pub app: Option<&'a str>,
    /// Nomad's namespace or job.
    pub nomad: Option<&'a str>,
    /// Compose's project.
    pub project: Option<&'a str>,
    /// How many groups of an app make a tenant; at least 1.
    pub depth: u8,
}

/// The tenant.
pub fn of(sources: &Sources<'_>) -> String {
    let label = sources.label.map(str::to_owned);
    let group = || sources.app.and_then(|app| group(app, sources.depth));
    let nomad = || sources.nomad.and_then(mangled);
    let project = || sources.project.and_then(mangled);
    label.or_else(group).or_else(nomad).or_else(project).unwrap_or_else(|| DEFAULT_TENANT.to_owned())
}

/// The first groups of an app, joined by dots; an app of the root group has none.
fn group(app: &str, depth: u8) -> Option<String> {
    let parts: Vec<&str> = app.split('/').filter(|part| !part.is_empty()).collect();
    let (_, groups) = parts.split_last()?;
    let first: Vec<&str> = groups.iter().copied().take(depth.into()).collect();
    mangled(&first.join("."))
}

/// With `-` for what a tenant's name cannot have.
fn mangled(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text: String = text.chars().take(63).map(|c| if allowed(c) { c } else { '-' }).collect();
    allow::tenant(&text).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_counts_first_then_the_group_then_the_project() {
        let of = |label, app, project, depth| of(&Sources { label, app, nomad: None, project, depth });
        assert_eq!(of(Some("bank"), Some("/shop/web"), Some("site"), 1), "bank");
        assert_eq!(of(None, Some("/shop/front/web"), Some("site"), 1), "shop");
        assert_eq!(of(None, Some("/shop/front/web"), None, 2), "shop.front");
        assert_eq!(of(None, Some("/shop/front/web"), None, 9), "shop.front");
        assert_eq!(of(None, Some("/web"), Some("site"), 1), "site");
        assert_eq!(of(None, Some("/"), Some("my site"), 1), "my-site");
        assert_eq!(of(None, None, None, 1), "default");
        assert_eq!(of(None, None, Some(""), 1), "default");
        let nomad = |app| {
            super::of(&Sources { label: None, app, nomad: Some("team a"), project: Some("site"), depth: 1 })
        };
        assert_eq!((nomad(None), nomad(Some("/shop/web"))), ("team-a".to_owned(), "shop".to_owned()));
    }
}
