//! TLS towards upstreams: public roots and given ones, HTTP/2 or HTTP/1.1 as the server likes.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// How certificates are checked; the same for all connections of a server.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

impl Tls {
    /// Trusts the public roots, and the certificates in `pem` with them. A text without any is an error: nobody names
    /// it for nothing.
    pub(crate) fn new(pem: &[String]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let public = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
        roots.add_parsable_certificates(public);
        for pem in pem {
            let before = roots.len();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let certificate = certificate.map_err(|error| error.to_string())?;
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
            if roots.len() == before {
                return Err("there is no PEM certificate in the text".to_owned());
            }
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with `host`, by SNI and by its certificate; true when the server chose HTTP/2.
    pub(crate) async fn connect(&self, host: &str, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, bool)> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| std::io::Error::other(rustls::Error::General(format!("{host} is no name for a server"))))?;
        let stream = self.0.connect(name, stream).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((stream, http2))
    }
}
