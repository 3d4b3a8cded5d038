//! Asks name servers by TLS (RFC 7858), on connections that are kept for the next question.
//!
//! Must never take an answer from a server whose certificate is not for the name that the user gave.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::rustls::pki_types::pem::PemObject;
use ::rustls::pki_types::{CertificateDer, ServerName};
use ::rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;
use crate::settings::{Secured, Settings};
use crate::tcp::framing::{read_message, write_message};

/// Connections to one server that wait for another question: as many as were ever needed at once, and no more than this.
const IDLE: usize = 8;

type Connection = TlsStream<TcpStream>;

/// The servers that are asked by TLS.
pub(crate) struct Tls {
    names: HashMap<SocketAddr, ServerName<'static>>,
    connector: TlsConnector,
    idle: RefCell<HashMap<SocketAddr, Vec<Connection>>>,
}

impl Tls {
    /// Those of the settings; none if there are none.
    ///
    /// # Errors
    /// [`Error::Tls`]: a name that no certificate can have, or no authority to trust.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, Error> {
        if settings.secured.is_empty() {
            return Ok(None);
        }
        let name = |Secured { address, name }: &Secured| {
            let name = ServerName::try_from(name.clone());
            name.map(|name| (*address, name)).map_err(|error| Error::Tls(format!("{address}: {error}")))
        };
        let names = settings.secured.iter().map(name).collect::<Result<_, _>>()?;
        let roots = roots(settings.authorities.as_deref())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.map_err(|error| Error::Tls(error.to_string()))?.with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        // RFC 7858 section 3.1 wants no more; some servers look at it.
        config.alpn_protocols = vec![b"dot".to_vec()];
        Ok(Some(Self { names, connector: Arc::new(config).into(), idle: RefCell::default() }))
    }

    /// Whether this server is to be asked by TLS.
    pub(crate) fn is_for(&self, server: SocketAddr) -> bool {
        self.names.contains_key(&server)
    }

    /// Sends a request, and reads the next message.
    ///
    /// # Errors
    /// The server cannot be reached, or is another one.
    pub(crate) async fn exchange(&self, server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
        // A server ends connections that are idle, and a question changes nothing.
        let kept = self.idle.borrow_mut().get_mut(&server).and_then(Vec::pop);
        if let Some(kept) = kept
            && let Ok(reply) = self.talk(server, kept, request).await
        {
            return Ok(reply);
        }
        let fresh = self.connect(server).await?;
        self.talk(server, fresh, request).await
    }

    async fn connect(&self, server: SocketAddr) -> io::Result<Connection> {
        let name = self.names.get(&server).cloned().ok_or(io::ErrorKind::NotFound)?;
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        self.connector.connect(name, stream).await
    }

    async fn talk(&self, server: SocketAddr, mut on: Connection, request: &[u8]) -> io::Result<Vec<u8>> {
        write_message(&mut on, request).await?;
        let mut reply = Vec::new();
        read_message(&mut on, &mut reply).await?;
        let mut idle = self.idle.borrow_mut();
        let idle = idle.entry(server).or_default();
        if idle.len() < IDLE {
            idle.push(on);
        }
        Ok(reply)
    }
}

/// The authorities of this PEM, else those of the host.
fn roots(pem: Option<&str>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    let found: Vec<CertificateDer<'static>> = match pem {
        Some(pem) => CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| Error::Tls(format!("the authorities cannot be read: {error}")))?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() {
        let advice = "no authority is trusted: install ca-certificates, or give --dns-upstream-ca";
        return Err(Error::Tls(advice.to_owned()));
    }
    Ok(roots)
}
