//! The client's side: accepts connections, reads heads, and sends each request its way. Never blocks, and
//! never looks into a body that is not rewritten.

pub(crate) mod accept;
pub(crate) mod connection;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod message;
pub(crate) mod parting;
pub(crate) mod promise;
pub(crate) mod relay;
pub(crate) mod stream;
pub(crate) mod upstream;
