//! Whether a create gets a wire, and how the log tells where it gets none that its user may have expected. Must never decide
//! by anything but the create itself and the settings.

use selvedge_containers::wireless;
use selvedge_engine::object::BodyError;
use selvedge_engine::refusal::Refusal;
use tracing::warn;

use super::sent::Body;
use crate::rewrite::labels::Wanted;
use crate::rewrite::request::Request;
use crate::rewrite::weave;

/// Which wire a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    None,
    /// In place of what the engine gives, which stays for published ports and the way out.
    Own,
    /// Beside a network of its user's.
    Beside,
}

/// `user_networks`: also those on user-defined networks get one. `joins`: it has joined the network of one of ours, and counts
/// for the wire there.
pub(super) fn wants_wire(body: &Body, user_networks: bool, joins: bool) -> Result<Wire, Refusal> {
    let wishes = &body.wishes;
    let mode = body.host.get::<String>("NetworkMode")?.unwrap_or_default();
    let never = mode == "host" || mode.starts_with("container:");
    match wishes.network {
        Some(Wanted::None) => Ok(Wire::None),
        Some(Wanted::Default) if never => Err(Refusal::new(
            400,
            format!(
                "label selvedge.network=default: a container with network mode {mode:?} has no network of its own"
            ),
        )),
        Some(Wanted::Default) => Ok(Wire::Own),
        None if weave::is_none(body.env(weave::VARIABLE)) => Ok(Wire::None),
        None => {
            let wire = by_mode(&mode, user_networks);
            match wishes.address {
                Some(_) if wire == Wire::None => Err(without("selvedge.ip", &mode)),
                None if wire == Wire::None && !joins && !wishes.vips.is_empty() => {
                    Err(without("selvedge.vip", &mode))
                }
                _ => Ok(wire),
            }
        }
    }
}

fn by_mode(mode: &str, user_networks: bool) -> Wire {
    match mode {
        "" | "default" | "bridge" | "none" => Wire::Own,
        mode if user_networks && is_user_network(mode) => Wire::Beside,
        _ => Wire::None,
    }
}

/// Whether a network mode can only be the name of a network: podman has modes of its own.
fn is_user_network(mode: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    mode.chars().all(fits) && !matches!(mode, "host" | "private" | "slirp4netns" | "pasta")
}

fn without(label: &str, mode: &str) -> Refusal {
    Refusal::new(400, format!("label {label}: a container with network mode {mode:?} gets no wire"))
}

/// Says in the log what `ps` will say: a user who writes labels expects a wire.
pub(super) fn tell_why_not(request: &Request<'_>, body: &Body) -> Result<(), BodyError> {
    let mode = body.host.get::<String>("NetworkMode")?.unwrap_or_default();
    let labels = body.labels.clone().into_iter().collect();
    if let Some(reason) = wireless::reason(&mode, &labels) {
        let name = request.query_value("name").unwrap_or_default();
        warn!(name, reason, "created without a wire");
    }
    Ok(())
}
