//! DNS messages on a TCP connection: each has its length in front (RFC 1035 section 4.2.2). It must never write a
//! message in pieces.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The next message: two bytes of length (RFC 1035 section 4.2.2), then so many bytes.
pub(crate) async fn read_message(
    reader: &mut (impl AsyncReadExt + Unpin),
    message: &mut Vec<u8>,
) -> io::Result<()> {
    let length = reader.read_u16().await?;
    message.resize(usize::from(length), 0);
    reader.read_exact(message).await?;
    Ok(())
}

/// Writes a message with its length in front, in one write: some clients need that (RFC 7766 section 8).
pub(crate) async fn write_message(
    writer: &mut (impl AsyncWriteExt + Unpin),
    message: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(2 + message.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(message);
    writer.write_all(&bytes).await
}
