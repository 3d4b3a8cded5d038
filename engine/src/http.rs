//! HTTP/1 as bytes: heads, framing, whole messages, and relaying them over kept connections. Must never change a byte
//! that is not named.

pub mod buffered;
pub mod framing;
pub mod head;
pub mod message;
pub mod pool;
pub mod question;
pub mod relay;
