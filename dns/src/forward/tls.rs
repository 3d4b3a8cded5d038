//! Name servers that are asked by TLS, in a build that can, and in one that cannot. Must never decide which of them it is.

#[cfg(not(feature = "tls"))]
mod none;
#[cfg(feature = "tls")]
mod rustls;

#[cfg(not(feature = "tls"))]
pub(crate) use self::none::Tls;
#[cfg(feature = "tls")]
pub(crate) use self::rustls::Tls;
