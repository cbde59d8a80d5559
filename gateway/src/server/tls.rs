//! TLS for the listener: read once at start, or the server does not start.
//!
//! Rule    a file that is missing, unreadable or does not parse, and a key that is not the certificate's, are errors at start; there is no
//!         fallback to plaintext.
//! Versions  TLS 1.2 and 1.3, by rustls on ring
//! Source  PostgreSQL 15, "SSL Session Encryption"; direct negotiation with ALPN `postgresql`, PostgreSQL 17; RFC 5929 for the binding

use super::ServerError;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

/// The protocol's name in ALPN.
pub(super) const ALPN: &[u8] = b"postgresql";

/// Where certificate and key are.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM: the server's certificate, then the chain.
    pub certificate: PathBuf,
    /// PEM: the private key, PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// What the files gave.
pub(crate) struct Tls {
    /// Accepts handshakes.
    pub(crate) acceptor: TlsAcceptor,
    /// SCRAM bound to this certificate; `None` where its signature has no hash to bind to (Ed25519).
    pub(super) bound: Option<ScramServerAuth>,
}

fn refused(path: &Path, why: impl Display) -> ServerError {
    ServerError::Tls { path: path.to_owned(), why: why.to_string() }
}

/// Reads the files, for a protocol by its name in ALPN.
pub(crate) fn load(files: &TlsFiles, alpn: &[u8]) -> Result<Tls, ServerError> {
    let pem = std::fs::read(&files.certificate).map_err(|e| refused(&files.certificate, e))?;
    let chain = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| refused(&files.certificate, e))?;
    if chain.is_empty() {
        return Err(refused(&files.certificate, "no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| refused(&files.key, e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| refused(&files.certificate, e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| refused(&files.key, e))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    let mut bound = ScramServerAuth::new();
    let bound = match bound.configure_certificate(&pem) {
        Ok(()) => Some(bound),
        Err(error) => {
            tracing::warn!(%error, "logins are not bound to the TLS certificate");
            None
        }
    };
    Ok(Tls { acceptor: TlsAcceptor::from(Arc::new(config)), bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(certificate: &[u8], key: &[u8]) -> (tempfile::TempDir, TlsFiles) {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        std::fs::write(&files.certificate, certificate).unwrap();
        std::fs::write(&files.key, key).unwrap();
        (folder, files)
    }

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.key_pair.serialize_pem())
    }

    #[test]
    fn takes_a_certificate_with_its_key_and_binds_logins_to_it() {
        let (certificate, key) = pair();
        let (_folder, files) = files(certificate.as_bytes(), key.as_bytes());
        assert!(load(&files, ALPN).unwrap().bound.is_some());
    }

    #[test]
    fn refuses_missing_empty_and_foreign_files() {
        let (certificate, key) = pair();
        let (_folder, none) = files(b"", key.as_bytes());
        assert!(matches!(load(&none, ALPN), Err(ServerError::Tls { .. })));
        let (_folder, no_key) = files(certificate.as_bytes(), b"");
        assert!(matches!(load(&no_key, ALPN), Err(ServerError::Tls { .. })));
        let (_folder, foreign) = files(certificate.as_bytes(), pair().1.as_bytes());
        assert!(matches!(load(&foreign, ALPN), Err(ServerError::Tls { .. })));
        let (folder, missing) = files(certificate.as_bytes(), key.as_bytes());
        drop(folder);
        assert!(matches!(load(&missing, ALPN), Err(ServerError::Tls { .. })));
    }
}
