//! The one place that knows Docker's form of an error: `{"message": "..."}` with a status.

use crate::object::BodyError;

/// An answer of ours that says no. The text is for the client; what only we should see is logged where it
/// happens.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// One sentence, without our name in front.
    pub message: String,
    /// It is about the request's JSON: the engine may have words of its own for that.
    pub of_body: bool,
}

impl Refusal {
    /// A refusal with this status and sentence.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), of_body: false }
    }

    /// The body that Docker's clients expect (API: `ErrorResponse`).
    pub fn body(&self) -> Vec<u8> {
        message_body(&format!("selvedge: {}", self.message))
    }
}

/// A body in the engine's form of an error, with the text as it is.
pub fn message_body(text: &str) -> Vec<u8> {
    let mut body = serde_json::json!({ "message": text }).to_string().into_bytes();
    body.push(b'\n');
    body
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Self {
        Self { status: 400, message: error.to_string(), of_body: true }
    }
}

/// The reason phrase of a status (RFC 9110, 15).
pub fn reason(status: u16) -> &'static str {
    hyper::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason()).unwrap_or("Unknown")
}
