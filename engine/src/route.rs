//! What a request is: rewritten, short, or a stream.
//!
//! The engine routes by the percent-decoded path, so we look at the same: a path that we take for harmless
//! must never be one that the engine serves as a create. What we do not know is a stream and passes untouched.

use std::fmt::Write as _;

use crate::http::head;

/// What is done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Answered at once by the engine: relayed with keep-alive on both sides.
    Short,
    /// May live long, or is unknown to us: both sockets go to the keeper.
    Stream,
    /// Read, changed and answered by the worker.
    Rewritten(Endpoint),
    /// A path that is not in its clean form, and whose clean form is one that we rewrite. The engine's router
    /// answers such a path with a redirect; so do we, to this path.
    Redirect(String),
    /// HTTP/2 from the first byte: a stream of requests of which we see none.
    Http2,
    /// A path that cannot be percent-decoded.
    Malformed,
}

/// The endpoints that are rewritten. `String` is the container's name or id as the client wrote it, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /containers/create`
    Create,
    /// `POST /containers/{id}/start`
    Start(String),
    /// `POST /containers/{id}/restart`
    Restart(String),
    /// `GET /containers/{id}/json`
    Inspect(String),
    /// `GET /containers/json`
    List,
    /// `GET /containers/{id}/changes`
    Changes(String),
    /// `GET /containers/{id}/top`
    Top(String),
    /// `POST /commit`
    Commit,
    /// `GET /images/{name}/json`
    ImageInspect(String),
    /// `GET|HEAD /_ping`; only with `--compat mesos`.
    Ping,
    /// `GET /images/json`; only with `--compat api-min`.
    Images,
    /// `GET /version`; only with `--compat api-min`.
    Version,
}

/// What an old client is answered in another way besides.
pub fn of_old(method: &str, target: &str) -> Option<Endpoint> {
    let path = percent_decode(path_of(target)).filter(|_| method == "GET")?;
    match split_version(&path).1 {
        "/images/json" => Some(Endpoint::Images),
        "/version" => Some(Endpoint::Version),
        _ => None,
    }
}

impl Endpoint {
    /// Whether the engine looks at the body of such a request, be it only for its length and kind.
    pub fn may_read_body(&self) -> bool {
        matches!(self, Self::Create | Self::Commit)
    }

    /// Whether the engine reads the body of such a request: that of a create or commit when it is said to be JSON, and
    /// a form wherever the engine looks for parameters.
    pub fn reads_body(&self, head: &[u8]) -> bool {
        let kind = media_type(head);
        match self {
            Self::Create | Self::Commit => matches!(kind.as_str(), JSON | FORM),
            Self::Start(_) | Self::Restart(_) => kind == FORM,
            _ => false,
        }
    }
}

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// What a head says that its body is, without parameters.
fn media_type(head: &[u8]) -> String {
    let value = head::field(head, "content-type").unwrap_or_default();
    let kind = value.split(|b| *b == b';').next().unwrap_or_default();
    String::from_utf8_lossy(kind.trim_ascii()).to_ascii_lowercase()
}

/// Whether a body holds parameters as a query does (Go: `Request.ParseForm`).
pub fn is_form(head: &[u8]) -> bool {
    media_type(head) == FORM
}

/// Decides by method and request target (as on the request line). `compat_mesos` adds the endpoints that only
/// this mode touches.
pub fn classify(method: &str, target: &str, compat_mesos: bool) -> Route {
    if (method, target) == ("PRI", "*") {
        return Route::Http2;
    }
    let raw_path = path_of(target);
    if !raw_path.starts_with('/') {
        // Go's server refuses such a target (`url.ParseRequestURI`); let it answer so itself.
        return Route::Stream;
    }
    // No object has a name that is not UTF-8, which the engine says itself.
    let Some(path) = decoded_bytes(raw_path) else { return Route::Malformed };
    let path = String::from_utf8_lossy(&path);
    let clean = clean(&path);
    let (_, bare) = split_version(&clean);
    let route = by_path(method, bare, compat_mesos);
    if clean == path {
        return route;
    }
    match route {
        Route::Rewritten(_) => Route::Redirect(clean),
        _ => Route::Stream,
    }
}

/// The path of a request target: without the query, and without scheme and authority of an absolute form
/// (RFC 9112, 3.2.2). Read as Go's `url.ParseRequestURI` reads it, for which `x:/path` has a scheme and no
/// authority.
pub fn path_of(target: &str) -> &str {
    let (has_scheme, rest) = match target.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (true, rest),
        _ => (false, target),
    };
    let path = rest.split('?').next().unwrap_or("");
    match path.strip_prefix("//").filter(|_| has_scheme) {
        Some(authority) => authority.find('/').map_or("/", |at| &authority[at..]),
        // What follows a scheme without a slash is opaque to Go: there is no path.
        None if has_scheme && !path.starts_with('/') => "/",
        None => path,
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// The query of a request target, without the question mark.
pub fn query_of(target: &str) -> &str {
    target.split_once('?').map_or("", |(_, query)| query)
}

/// One value of a query, decoded; the first one counts, as with Go's `Form.Get`.
pub fn query_value(query: &str, key: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (form_decode(name)? == key).then(|| form_decode(value)).flatten()
    })
}

fn form_decode(text: &str) -> Option<String> {
    percent_decode(&text.replace('+', " "))
}

/// Splits `/v1.41/containers/json` into `/v1.41` and `/containers/json`.
pub fn split_version(path: &str) -> (&str, &str) {
    let Some(rest) = path.strip_prefix("/v") else { return ("", path) };
    let end = rest.find('/').unwrap_or(rest.len());
    let version = &rest[..end];
    let is_version = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_version { path.split_at(2 + end) } else { ("", path) }
}

fn by_path(method: &str, path: &str, compat_mesos: bool) -> Route {
    match (method, path) {
        ("POST", "/containers/create") => Route::Rewritten(Endpoint::Create),
        ("GET", "/containers/json") => Route::Rewritten(Endpoint::List),
        ("POST", "/commit") => Route::Rewritten(Endpoint::Commit),
        ("GET" | "HEAD", "/_ping") if compat_mesos => Route::Rewritten(Endpoint::Ping),
        ("GET" | "HEAD", "/_ping")
        | ("GET", "/version" | "/info" | "/images/json" | "/networks" | "/volumes") => Route::Short,
        _ => by_object(method, path),
    }
}

fn by_object(method: &str, path: &str) -> Route {
    if let Some(rest) = path.strip_prefix("/containers/") {
        return container(method, rest);
    }
    if let Some(name) = path.strip_prefix("/images/").and_then(|rest| rest.strip_suffix("/json")) {
        return if method == "GET" {
            Route::Rewritten(Endpoint::ImageInspect(name.to_owned()))
        } else {
            Route::Stream
        };
    }
    let inspect =
        |prefix: &str| path.strip_prefix(prefix).is_some_and(|name| !name.is_empty() && !name.contains('/'));
    let short = (method == "GET" && (inspect("/networks/") || inspect("/volumes/")))
        || (method == "GET" && path.starts_with("/exec/") && path.ends_with("/json"))
        || (method == "POST" && path.starts_with("/exec/") && path.ends_with("/resize"));
    if short { Route::Short } else { Route::Stream }
}

fn container(method: &str, rest: &str) -> Route {
    // The engine's pattern is `/containers/{name:.*}/start`: a name may hold slashes there.
    let Some((name, verb)) = rest.rsplit_once('/') else { return Route::Stream };
    let name = name.to_owned();
    match (method, verb) {
        ("POST", "start") => Route::Rewritten(Endpoint::Start(name)),
        ("POST", "restart") => Route::Rewritten(Endpoint::Restart(name)),
        ("GET", "json") => Route::Rewritten(Endpoint::Inspect(name)),
        ("GET", "changes") => Route::Rewritten(Endpoint::Changes(name)),
        ("GET", "top") => Route::Rewritten(Endpoint::Top(name)),
        ("POST", "exec" | "kill" | "pause" | "unpause" | "rename" | "update" | "resize") => Route::Short,
        _ => Route::Stream,
    }
}

/// Decodes `%XX`; `None` when an escape is broken or the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    String::from_utf8(decoded_bytes(text)?).ok()
}

/// Decodes `%XX`; `None` when an escape is broken.
pub fn decoded_bytes(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let hex = bytes.get(at + 1..at + 3)?;
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
            out.push(digit(hex[0])? * 16 + digit(hex[1])?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    Some(out)
}

/// Encodes what may not stand in a path segment (RFC 3986, 3.3).
pub fn percent_encode(text: &(impl AsRef<[u8]> + ?Sized)) -> String {
    let mut out = String::with_capacity(text.as_ref().len());
    for &byte in text.as_ref() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' | b'@' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// A path without empty, `.` and `..` segments; a trailing slash stays, as the engine's router (gorilla/mux)
/// leaves it.
fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

#[cfg(test)]
mod tests;
