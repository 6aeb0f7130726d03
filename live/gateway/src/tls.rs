//! TLS by rustls: for clients with the certificate of the file, to backends with whomever this
//! machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).

use std::path::Path;
use std::sync::Arc;

use plimsoll_config::gateway::Tls;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Only what we speak.
const ALPN: &[u8] = b"http/1.1";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Speaks TLS with clients.
#[derive(Clone)]
pub(crate) struct Acceptor(TlsAcceptor);

impl Acceptor {
    /// With the certificate and the key of a file.
    ///
    /// # Errors
    /// In words, if they cannot be read or do not belong together.
    pub fn new(tls: &Tls) -> Result<Acceptor, String> {
        let said = |path: &Path, error: &dyn std::fmt::Display| {
            format!("cannot read `{}`: {error}", path.display())
        };
        let chain = CertificateDer::pem_file_iter(&tls.certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| said(&tls.certificate, &error))?;
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| said(&tls.key, &error))?;
        let wrong = |error| format!("certificate and key: {error}");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(wrong)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Acceptor(TlsAcceptor::from(Arc::new(config))))
    }

    /// Agrees with a client on keys.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<server::TlsStream<S>> {
        self.0.accept(stream).await
    }
}

/// Speaks TLS with backends.
#[derive(Clone)]
pub(crate) struct Connector(TlsConnector);

impl Connector {
    /// Trusts whom this machine trusts.
    ///
    /// # Errors
    /// In words, if that is nobody.
    pub fn native() -> Result<Connector, String> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate that this machine trusts cannot be read");
        }
        Connector::trusting(found.certs)
    }

    /// Trusts these, whatever of them can be read.
    pub fn trusting(certificates: Vec<CertificateDer<'static>>) -> Result<Connector, String> {
        let mut roots = RootCertStore::empty();
        let (good, _) = roots.add_parsable_certificates(certificates);
        if good == 0 {
            return Err("this machine trusts no certificate: set SSL_CERT_FILE".to_owned());
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Connector(TlsConnector::from(Arc::new(config))))
    }

    /// Agrees with a backend on keys, if it is who it says.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        self.0.connect(name, stream).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    fn tls(key: &str) -> Tls {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        Tls { certificate: folder.join("certificate.pem"), key: folder.join(key) }
    }

    fn trusted() -> Vec<CertificateDer<'static>> {
        let path = tls("key.pem").certificate;
        vec![CertificateDer::from_pem_file(path).expect("it is a certificate")]
    }

    #[tokio::test]
    async fn who_is_trusted_is_spoken_to() {
        let acceptor = Acceptor::new(&tls("key.pem")).expect("they belong together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        });
        let open = || async { TcpStream::connect(address).await.expect("somebody listens") };
        let knows = Connector::trusting(trusted()).expect("a certificate");
        let mut stream = knows.connect("localhost", open().await).await.expect("it is trusted");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it says something");
        assert_eq!(text, "hello");
        assert!(knows.connect("127.0.0.1", open().await).await.is_ok(), "addresses are names");
        assert!(knows.connect("other.example", open().await).await.is_err(), "another's name");
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let why = Acceptor::new(&tls("nowhere.pem")).err().unwrap_or_default();
        assert!(why.contains("nowhere.pem"), "{why}");
        let why = Acceptor::new(&tls("other.pem")).err().unwrap_or_default();
        assert!(why.contains("certificate and key"), "{why}");
        assert!(Connector::trusting(Vec::new()).is_err());
    }
}
