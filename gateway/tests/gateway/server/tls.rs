//! Encryption: required, bound to the password exchange, and never given up silently.

use super::support::{Raw, Running, ada, connect, error_in, read_to_close, refused, start, state, write_packet};
use fluence_gateway::server::{ServerError, ServerOptions, TlsFiles};
use sha2::{Digest, Sha256};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// A certificate for localhost, and the files that hold it while the folder is there.
pub(super) struct Certificate {
    _folder: tempfile::TempDir,
    files: TlsFiles,
    der: CertificateDer<'static>,
}

pub(super) fn certificate() -> Certificate {
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: folder.path().join("server.crt"), key: folder.path().join("server.key") };
    std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.key_pair.serialize_pem()).unwrap();
    Certificate { _folder: folder, files, der: pair.cert.der().clone() }
}

fn options(certificate: &Certificate, require_tls: bool) -> ServerOptions {
    ServerOptions { tls: Some(certificate.files.clone()), require_tls, ..ServerOptions::new(ada()) }
}

/// Options of a server that takes encrypted clients alone.
pub(super) fn encrypted_options(certificate: &Certificate) -> ServerOptions {
    options(certificate, true)
}

/// Logs in over TLS and asks something; gives the SQLSTATE.
pub(super) async fn encrypted_state(server: &Running, certificate: &Certificate) -> String {
    ask(server, Trusting::new(certificate), SslNegotiation::Postgres).await
}

/// A driver's TLS that trusts one certificate and binds the password exchange to it.
struct Trusting {
    connector: TlsConnector,
    /// SHA-256 of the certificate that the exchange is bound to.
    bound_to: Vec<u8>,
}

impl Trusting {
    fn new(certificate: &Certificate) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let bound_to = Sha256::digest(&certificate.der).to_vec();
        Self { connector: TlsConnector::from(Arc::new(config)), bound_to }
    }
}

struct Bound(TlsStream<TcpStream>, Vec<u8>);

impl AsyncRead for Bound {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}
impl AsyncWrite for Bound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
impl tokio_postgres::tls::TlsStream for Bound {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::tls_server_end_point(self.1.clone())
    }
}
impl TlsConnect<TcpStream> for Trusting {
    type Stream = Bound;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Bound>> + Send>>;
    fn connect(self, stream: TcpStream) -> Self::Future {
        Box::pin(async move {
            let name = ServerName::try_from("localhost").expect("a name");
            Ok(Bound(self.connector.connect(name, stream).await?, self.bound_to))
        })
    }
}

/// Logs in over TLS and asks something; gives the SQLSTATE.
async fn ask(server: &Running, tls: Trusting, negotiation: SslNegotiation) -> String {
    let mut config = server.config();
    config.ssl_mode(SslMode::Require).ssl_negotiation(negotiation).channel_binding(Binding::Require);
    match config.connect_raw(server.socket().await, tls).await {
        Ok((client, connection)) => {
            tokio::spawn(connection);
            state(client.simple_query("SELECT 1").await)
        }
        Err(error) => state::<()>(Err(error)),
    }
}

#[tokio::test]
async fn an_encrypted_client_comes_in_bound_to_the_certificate() {
    let certificate = certificate();
    let server = start(options(&certificate, true)).await;
    assert_eq!(ask(&server, Trusting::new(&certificate), SslNegotiation::Postgres).await, "00000");
    assert_eq!(ask(&server, Trusting::new(&certificate), SslNegotiation::Direct).await, "00000");
    // Somebody between would have another certificate, and the proof would be bound to that.
    let mut other = Trusting::new(&certificate);
    other.bound_to[0] ^= 1;
    assert_eq!(ask(&server, other, SslNegotiation::Postgres).await, "08P01");
    server.stop().await;
}

#[tokio::test]
async fn plaintext_is_refused_where_encryption_is_required_and_taken_where_it_is_offered() {
    let certificate = certificate();
    let server = start(options(&certificate, true)).await;
    let error = connect(&server.config()).await.err().unwrap();
    assert_eq!(error.as_db_error().unwrap().severity(), "FATAL");
    assert_eq!(state::<()>(Err(error)), "28000");
    server.stop().await;

    let server = start(options(&certificate, false)).await;
    assert_eq!(state(connect(&server.config()).await), "00000");
    server.stop().await;
}

#[tokio::test]
async fn a_half_open_handshake_is_closed() {
    let certificate = certificate();
    let mut options = options(&certificate, true);
    options.startup_timeout = Duration::from_millis(100);
    let server = start(options).await;
    let mut stream = server.socket().await;
    write_packet(&mut stream, &80_877_103_u32.to_be_bytes()).await;
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    assert_eq!(read_to_close(&mut stream).await, b"");
    server.stop().await;
}

#[tokio::test]
async fn plaintext_behind_the_request_is_not_taken_for_the_client_within() {
    let certificate = certificate();
    let server = start(options(&certificate, true)).await;
    let mut raw = Raw { stream: server.socket().await, pid: 0, key: Vec::new() };
    write_packet(&mut raw.stream, &80_877_103_u32.to_be_bytes()).await;
    raw.startup(0x0003_0000, &[("user", "ada")]).await;
    assert_eq!(raw.stream.read_u8().await.unwrap(), b'S');
    let answer = read_to_close(&mut raw.stream).await;
    assert_eq!(error_in(&answer), None);
    assert!(!answer.contains(&b'R'), "no authentication request in clear: {answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_stop_the_server_at_its_start() {
    let missing = certificate();
    let files = missing.files.clone();
    drop(missing);
    let options = ServerOptions { tls: Some(files), ..ServerOptions::new(ada()) };
    assert!(matches!(refused("127.0.0.1:0", options).await, ServerError::Tls { .. }));
    let options = ServerOptions { require_tls: true, ..ServerOptions::new(ada()) };
    assert!(matches!(refused("127.0.0.1:0", options).await, ServerError::NoCertificate));
}
