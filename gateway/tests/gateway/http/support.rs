//! A server on a port of its own, and a client that sends what it is told.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fluence_gateway::http::{HttpOptions, serve};
use fluence_gateway::server::{ServerError, Users};
use fluence_gateway::session::{Gateway, GatewayOptions};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

pub(crate) const PASSWORD: &str = "analytical engine";

/// Ada with her password.
pub(crate) fn options() -> HttpOptions {
    HttpOptions::new(Users::scram().with_password("ada", &Zeroizing::new(PASSWORD.to_owned())))
}

/// A server that runs.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

pub(crate) async fn start(options: HttpOptions) -> Running {
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
pub(crate) async fn refused(address: &str, options: HttpOptions) -> ServerError {
    let listener = TcpListener::bind(address).await.unwrap();
    let gateway = Gateway::new(crate::real::store().await, GatewayOptions::default());
    serve(gateway, listener, options, std::future::pending()).await.unwrap_err()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads what came on a connection that was closed.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("a head: {bytes:?}"));
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let field = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).unwrap();
        let fields: Vec<_> = lines.map(field).collect();
        let mut body = bytes[end + 4..].to_vec();
        if fields.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked") {
            body = dechunk(&body);
        }
        Self { status, fields, body }
    }
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    /// The lines of a streamed answer.
    pub(crate) fn lines(&self) -> Vec<Value> {
        assert_eq!(self.field("content-type"), "application/x-ndjson", "{self:?}");
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
    /// The SQLSTATE of a problem, and its status where that is none.
    pub(crate) fn state(&self) -> String {
        if self.status < 400 {
            return "00000".to_owned();
        }
        let problem = self.json();
        assert_eq!(self.field("content-type"), "application/problem+json");
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["sqlstate"].as_str().map_or_else(|| self.status.to_string(), str::to_owned)
    }
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        whole.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    whole
}

/// The field by which Ada shows who she is.
pub(crate) fn basic(user: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A session that a client opened.
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) bearer: String,
}

impl Running {
    /// Ends the server and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
    pub(crate) async fn socket(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
    /// The head and body of a request as bytes; the Host is right unless `fields` say another.
    pub(crate) fn request(&self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !fields.iter().any(|f| f.starts_with("Host")) {
            head += &format!("Host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        fields.iter().filter(|f| !f.is_empty()).for_each(|field| head += &format!("{field}\r\n"));
        [head.as_bytes(), b"\r\n", body].concat()
    }
    /// Sends bytes and reads until the server closes; a reset counts as a close.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.socket().await;
        let _refused_half_way = socket.write_all(bytes).await;
        let mut all = Vec::new();
        let _closed_or_reset = socket.read_to_end(&mut all).await;
        all
    }
    pub(crate) async fn send(&self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Answer {
        Answer::read(&self.raw(&self.request(method, path, fields, body)).await)
    }
    /// As Ada.
    pub(crate) async fn ada(&self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Answer {
        let who = basic("ada", PASSWORD);
        self.send(method, path, &[&[who.as_str()], fields].concat(), body).await
    }
    /// A statement by itself, as Ada.
    pub(crate) async fn query(&self, sql: &str, params: Value) -> Answer {
        let body = json!({ "sql": sql, "params": params }).to_string();
        self.ada("POST", "/v1/query", &["Content-Type: application/json"], body.as_bytes()).await
    }
    /// The rows of a statement without parameters.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        let answer = self.query(sql, json!([])).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
        answer.json()["rows"].clone()
    }
    pub(crate) async fn open(&self) -> Opened {
        let answer = self.ada("POST", "/v1/sessions", &[], b"").await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let info = answer.json();
        let text = |name: &str| info[name].as_str().unwrap().to_owned();
        Opened { id: text("id"), bearer: format!("Authorization: Bearer {}", text("token")) }
    }
    /// A statement in a session.
    pub(crate) async fn query_in(&self, session: &Opened, sql: &str) -> Answer {
        let body = json!({ "sql": sql }).to_string();
        let path = format!("/v1/sessions/{}/query", session.id);
        self.send("POST", &path, &[&session.bearer, "Content-Type: application/json"], body.as_bytes()).await
    }
    /// The SQLSTATE of a statement in a session, once no other request uses it.
    pub(crate) async fn state_when_free(&self, session: &Opened, sql: &str) -> String {
        loop {
            let state = self.query_in(session, sql).await.state();
            if state != "55006" {
                return state;
            }
        }
    }
}
