//! From an accepted socket to a client that is known: encryption, startup packet, protocol version, password.
//!
//! ```text
//! [SSLRequest ── TLS] ── [GSSENCRequest ── N] ── StartupMessage ── SCRAM ──> Client
//!                                            └── CancelRequest ── done
//! ```
//! Rule    before the password is proven a packet has at most 10 000 bytes, nothing is read ahead of the TLS handshake
//!         [CVE-2021-23214], and the whole has one time limit, which the caller keeps.
//! Rule    where encryption is required, a StartupMessage in clear is refused; a CancelRequest in clear is not, it holds no secret that
//!         outlives its use.
//! Source  PostgreSQL 15, "Start-up"; protocol 3.2, PostgreSQL 18

use super::Server;
use super::auth::authenticate;
use super::errors::{Failure, Fault, code};
use super::frontend::Fields;
use super::tls::ALPN;
use super::wire::{Io, Wire};
use pgwire::messages::startup::NegotiateProtocolVersion;
use pgwire::messages::{PgWireBackendMessage, ProtocolVersion};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a packet of somebody unknown, as PostgreSQL has it.
pub(super) const PACKET_BYTES_MAX: usize = 10_000;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// A client that has proven who it is, but does not know it yet.
pub(super) struct Client {
    pub(super) wire: Wire,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application_name: String,
    pub(super) version: ProtocolVersion,
}

/// Brings a connection in. `None` where it had only something to say, or nothing.
pub(super) async fn admit(server: &Server, stream: TcpStream) -> Option<Client> {
    let mut stopped = None;
    match negotiate(server, stream, &mut stopped).await {
        Ok(client) => client,
        Err(failure) => {
            tracing::debug!(?failure, "a connection ended before its session began");
            if let (Some(wire), Some(fault)) = (stopped, failure.into_fault()) {
                wire.close_with(fault).await;
            }
            None
        }
    }
}

/// As [`admit`]; on an error that the client may hear, leaves the wire in `stopped`.
async fn negotiate(
    server: &Server,
    mut stream: TcpStream,
    stopped: &mut Option<Wire>,
) -> Result<Option<Client>, Failure> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first == [TLS_HANDSHAKE] {
        let Some(tls) = &server.tls else { return Ok(None) };
        let stream = tls.acceptor.accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Ok(None);
        }
        return started(server, Box::new(stream), true, stopped).await;
    }
    // Each may be asked once, in either order.
    let (mut ssl_asked, mut gss_asked) = (false, false);
    loop {
        let packet = match packet(&mut stream).await {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(None),
            Err(failure) => return Err(stop(server, Box::new(stream), stopped, failure)),
        };
        match packet.code {
            SSL_REQUEST if !ssl_asked => {
                ssl_asked = true;
                let Some(tls) = &server.tls else {
                    stream.write_all(b"N").await?;
                    continue;
                };
                stream.write_all(b"S").await?;
                let stream = tls.acceptor.accept(stream).await?;
                return started(server, Box::new(stream), true, stopped).await;
            }
            GSS_REQUEST if !gss_asked => {
                gss_asked = true;
                stream.write_all(b"N").await?;
            }
            _ => return start(server, Box::new(stream), false, packet, stopped).await,
        }
    }
}

/// Keeps the stream for the last word.
fn stop(server: &Server, io: Box<dyn Io>, stopped: &mut Option<Wire>, failure: Failure) -> Failure {
    *stopped = Some(Wire::new(io, server.options.message_bytes_max));
    failure
}

/// Reads the packet that follows the handshake.
async fn started(
    server: &Server,
    mut io: Box<dyn Io>,
    secure: bool,
    stopped: &mut Option<Wire>,
) -> Result<Option<Client>, Failure> {
    match packet(&mut io).await {
        Ok(Some(packet)) => start(server, io, secure, packet, stopped).await,
        Ok(None) => Ok(None),
        Err(failure) => Err(stop(server, io, stopped, failure)),
    }
}

async fn start(
    server: &Server,
    io: Box<dyn Io>,
    secure: bool,
    packet: Packet,
    stopped: &mut Option<Wire>,
) -> Result<Option<Client>, Failure> {
    if packet.code == CANCEL_REQUEST {
        if let Some((pid, secret)) = packet.body.split_first_chunk::<4>() {
            server.registry.cancel(i32::from_be_bytes(*pid), secret);
        }
        return Ok(None);
    }
    let mut wire = Wire::new(io, PACKET_BYTES_MAX);
    match login(server, &mut wire, secure, &packet).await {
        Ok((version, mut parameters)) => {
            wire.limit(server.options.message_bytes_max);
            let mut take = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
            let user = take("user").unwrap_or_default();
            let database = take("database").unwrap_or_else(|| user.clone());
            let application_name = take("application_name").unwrap_or_default();
            Ok(Some(Client { wire, user, database, application_name, version }))
        }
        Err(failure) => {
            *stopped = Some(wire);
            Err(failure)
        }
    }
}

async fn login(
    server: &Server,
    wire: &mut Wire,
    secure: bool,
    packet: &Packet,
) -> Result<(ProtocolVersion, BTreeMap<String, String>), Failure> {
    let (major, minor) = (packet.code >> 16, packet.code & 0xffff);
    if major != 3 {
        return Err(Fault::fatal(
            code::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"),
        )
        .into());
    }
    let parameters = parameters(&packet.body)?;
    if server.options.require_tls && !secure {
        return Err(Fault::fatal(code::INVALID_AUTHORIZATION, "this server takes encrypted connections only")
            .hint("connect with sslmode=require or stricter")
            .into());
    }
    let version = if minor >= 2 { ProtocolVersion::PROTOCOL3_2 } else { ProtocolVersion::PROTOCOL3_0 };
    let unsupported: Vec<String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).cloned().collect();
    if !matches!(minor, 0 | 2) || !unsupported.is_empty() {
        wire.feed(PgWireBackendMessage::NegotiateProtocolVersion(NegotiateProtocolVersion::new(
            version.into(),
            unsupported,
        )))
        .await?;
    }
    check(&parameters)?;
    let user = parameters.get("user").map(String::as_str).unwrap_or_default();
    authenticate(wire, &server.options.users, user, server.tls.as_ref().filter(|_| secure)).await?;
    Ok((version, parameters))
}

/// Parameters that would change what the bytes mean.
fn check(parameters: &BTreeMap<String, String>) -> Result<(), Fault> {
    if parameters.get("user").is_none_or(String::is_empty) {
        return Err(Fault::fatal(code::INVALID_AUTHORIZATION, "no user name in the startup packet"));
    }
    if let Some(encoding) = parameters.get("client_encoding") {
        let name: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase();
        if !matches!(name.as_str(), "utf8" | "unicode" | "auto") {
            return Err(Fault::fatal(
                code::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"client_encoding\": \"{encoding}\""),
            )
            .hint("the server speaks UTF8"));
        }
    }
    match parameters.get("replication").map(String::as_str) {
        None | Some("" | "0" | "false" | "off" | "no") => Ok(()),
        Some(_) => Err(Fault::fatal(code::FEATURE_NOT_SUPPORTED, "replication connections are not supported")),
    }
}

/// A packet without a type byte.
struct Packet {
    /// Version or request code.
    code: u32,
    /// What follows it.
    body: Vec<u8>,
}

/// Reads one packet and not a byte more; `None` where the client closed before it.
async fn packet(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<Packet>, Failure> {
    let mut length = [0; 4];
    if io.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    io.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if !(8..=PACKET_BYTES_MAX).contains(&length) {
        return Err(
            Fault::fatal(code::PROTOCOL_VIOLATION, format!("invalid length of startup packet: {length}")).into()
        );
    }
    let code = io.read_u32().await?;
    let mut body = vec![0; length - 8];
    io.read_exact(&mut body).await?;
    Ok(Some(Packet { code, body }))
}

/// Name and value, each ending at a zero byte, until an empty name.
fn parameters(body: &[u8]) -> Result<BTreeMap<String, String>, Fault> {
    let fatal = |fault: Fault| Fault { fatal: true, ..fault };
    let mut fields = Fields::new(body);
    let mut parameters = BTreeMap::new();
    loop {
        let name = fields.text().map_err(fatal)?;
        if name.is_empty() {
            fields.end().map_err(fatal)?;
            return Ok(parameters);
        }
        parameters.insert(name, fields.text().map_err(fatal)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn reads_parameters_and_refuses_cut_or_longer_ones() {
        let body = b"user\0ada\0database\0\0\0";
        assert_eq!(parameters(body).unwrap(), map(&[("user", "ada"), ("database", "")]));
        for size in 0..body.len() {
            assert!(parameters(&body[..size]).unwrap_err().fatal, "cut to {size}");
        }
        assert!(parameters(b"user\0ada\0\0x").is_err());
        assert!(parameters(b"user\0\xff\0\0").is_err());
        assert!(parameters(b"").is_err());
    }

    #[test]
    fn refuses_parameters_that_it_cannot_keep() {
        assert!(check(&map(&[("user", "ada"), ("client_encoding", "'utf-8'"), ("replication", "off")])).is_ok());
        assert_eq!(check(&map(&[])).unwrap_err().code, "28000");
        assert_eq!(check(&map(&[("user", "")])).unwrap_err().code, "28000");
        assert_eq!(check(&map(&[("user", "ada"), ("client_encoding", "LATIN1")])).unwrap_err().code, "22023");
        assert_eq!(check(&map(&[("user", "ada"), ("replication", "database")])).unwrap_err().code, "0A000");
    }

    #[tokio::test]
    async fn a_packet_is_read_to_its_end_and_no_further() {
        let mut bytes: &[u8] = b"\0\0\0\x09\0\x03\0\0\0rest";
        let read = packet(&mut bytes).await.unwrap().unwrap();
        assert_eq!((read.code, read.body.as_slice(), bytes), (0x0003_0000, b"\0".as_slice(), b"rest".as_slice()));
        assert!(packet(&mut b"".as_slice()).await.unwrap().is_none());
        for garbage in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), b"\0\0\0\x07\0\0\0\0", b"\xff\xff\xff\xff\0\0\0\0"] {
            assert!(matches!(packet(&mut &*garbage).await, Err(Failure::Fault(fault)) if fault.fatal));
        }
        assert!(matches!(packet(&mut b"\0\0\0\x10\0\x03".as_slice()).await, Err(Failure::Gone(_))));
    }
}
