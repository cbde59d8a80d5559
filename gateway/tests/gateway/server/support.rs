//! A server on a port of its own, and a client that speaks raw messages.

use bytes::{BufMut, BytesMut};
use fluence_gateway::server::{ServerError, ServerOptions, Users, serve};
use fluence_gateway::session::{Gateway, GatewayOptions};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls};
use zeroize::Zeroizing;

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

/// Ada with her password.
pub(crate) fn ada() -> Users {
    Users::scram().with_password("ada", &Zeroizing::new("analytical engine".to_owned()))
}

/// Options under which everybody on loopback is trusted.
pub(crate) fn trusting() -> ServerOptions {
    ServerOptions::new(Users::trust_on_loopback())
}

pub(crate) async fn start(options: ServerOptions) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = Gateway::new(crate::real::store().await, GatewayOptions::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(gateway, listener, options, async {
        let _asked_or_dropped = stopped.await;
    }));
    Running { address, stop, task }
}

/// What `serve` says where it should not start.
pub(crate) async fn refused(address: &str, options: ServerOptions) -> ServerError {
    let listener = TcpListener::bind(address).await.unwrap();
    let gateway = Gateway::new(crate::real::store().await, GatewayOptions::default());
    serve(gateway, listener, options, std::future::pending()).await.unwrap_err()
}

impl Running {
    /// Ends the server and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
    /// A driver's configuration for this server: Ada, without encryption.
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::new();
        config.host("127.0.0.1").port(self.address.port()).user("ada").password("analytical engine").dbname("ada");
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        config
    }
    /// A driver's client.
    pub(crate) async fn client(&self) -> Client {
        connect(&self.config()).await.unwrap()
    }
    /// A connection on which nothing was said.
    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
    /// A raw client of a trusting server, after its first ReadyForQuery.
    pub(crate) async fn raw(&self) -> Raw {
        let mut raw = Raw { stream: self.socket().await, pid: 0, key: Vec::new() };
        raw.startup(0x0003_0000, &[("user", "ada")]).await;
        for (tag, body) in raw.until_ready().await {
            if tag == b'K' {
                raw.pid = i32::from_be_bytes(body[..4].try_into().unwrap());
                raw.key = body[4..].to_vec();
            }
        }
        raw
    }
    /// Sends a cancel request and waits until the server has closed, which it does when the request is dealt with.
    pub(crate) async fn cancel(&self, pid: i32, key: &[u8]) {
        let mut body = BytesMut::new();
        body.put_u32(80_877_102);
        body.put_i32(pid);
        body.put_slice(key);
        let mut stream = self.socket().await;
        write_packet(&mut stream, &body).await;
        assert_eq!(read_to_close(&mut stream).await, b"");
    }
}

/// Connects and runs the connection beside.
pub(crate) async fn connect(config: &Config) -> Result<Client, Error> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The SQLSTATE of a driver's error.
pub(crate) fn state<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => "00000".to_owned(),
        Err(error) => error.code().map_or_else(|| format!("no SQLSTATE: {error}"), |code| code.code().to_owned()),
    }
}

pub(crate) async fn write_packet(stream: &mut TcpStream, body: &[u8]) {
    let mut packet = BytesMut::new();
    packet.put_u32(u32::try_from(body.len() + 4).unwrap());
    packet.put_slice(body);
    stream.write_all(&packet).await.unwrap();
}

/// What comes until the server closes. A reset counts as a close: garbage may be left unread.
pub(crate) async fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _closed_or_reset = stream.read_to_end(&mut all).await;
    all
}

/// The SQLSTATE and severity of the first ErrorResponse in `bytes`.
pub(crate) fn error_in(bytes: &[u8]) -> Option<(String, String)> {
    let mut rest = bytes;
    while let [tag, a, b, c, d, after @ ..] = rest {
        let size = u32::from_be_bytes([*a, *b, *c, *d]) as usize - 4;
        let (body, next) = after.split_at_checked(size)?;
        if *tag == b'E' {
            return Some((field(body, b'C'), field(body, b'S')));
        }
        rest = next;
    }
    None
}

/// A field of an ErrorResponse or NoticeResponse.
pub(crate) fn field(body: &[u8], key: u8) -> String {
    let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&key));
    found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
}

/// A client that sends what it is told.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) pid: i32,
    pub(crate) key: Vec<u8>,
}

impl Raw {
    pub(crate) async fn startup(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut body = BytesMut::new();
        body.put_u32(version);
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            body.put_slice(text.as_bytes());
            body.put_u8(0);
        }
        body.put_u8(0);
        write_packet(&mut self.stream, &body).await;
    }
    pub(crate) async fn send(&mut self, tag: u8, body: &[u8]) {
        self.stream.write_u8(tag).await.unwrap();
        write_packet(&mut self.stream, body).await;
    }
    pub(crate) async fn query(&mut self, sql: &str) {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
    }
    /// The next message.
    pub(crate) async fn receive(&mut self) -> (u8, Vec<u8>) {
        let tag = self.stream.read_u8().await.unwrap();
        let mut body = vec![0; self.stream.read_u32().await.unwrap() as usize - 4];
        self.stream.read_exact(&mut body).await.unwrap();
        (tag, body)
    }
    /// All messages up to and with ReadyForQuery.
    pub(crate) async fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        loop {
            let message = self.receive().await;
            let ready = message.0 == b'Z';
            all.push(message);
            if ready {
                return all;
            }
        }
    }
    /// The types of all messages up to ReadyForQuery, and its status: `TDCZ` and `I`.
    pub(crate) async fn answer(&mut self) -> (String, char) {
        let all = self.until_ready().await;
        let status = char::from(all.last().unwrap().1[0]);
        (all.iter().map(|(tag, _)| char::from(*tag)).collect(), status)
    }
    /// The SQLSTATE of the error that comes next.
    pub(crate) async fn error(&mut self) -> String {
        loop {
            let (tag, body) = self.receive().await;
            if tag == b'E' {
                return field(&body, b'C');
            }
        }
    }
}
