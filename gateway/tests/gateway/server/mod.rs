//! The server over real sockets: what a stranger, a client, a cancel request and the end of the server do to it.
//!
//! Clients  tokio-postgres, and raw messages where a driver would not send such a thing
//! Ports    given by the system; nothing here waits for a time, only for what the other side sends or closes

mod auth;
mod cancel;
mod fuzz;
mod limits;
mod protocol;
mod rust_driver;
mod startup;
mod support;
mod tls;
