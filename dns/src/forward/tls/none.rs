//! What stands for TLS in a build without the feature `tls`. Must never ask a server in clear that is to be asked by TLS.

use std::io;
use std::net::SocketAddr;

use crate::error::Error;
use crate::settings::Settings;

/// No server is asked by TLS.
pub(crate) struct Tls;

impl Tls {
    /// # Errors
    /// [`Error::Tls`]: some are to be.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, Error> {
        match settings.secured.is_empty() {
            true => Ok(None),
            false => Err(Error::Tls("this program was built without the feature dns-over-tls".to_owned())),
        }
    }

    pub(crate) fn is_for(&self, _: SocketAddr) -> bool {
        false
    }

    #[expect(clippy::unused_async, reason = "the same as with the feature")]
    pub(crate) async fn exchange(&self, _: SocketAddr, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
