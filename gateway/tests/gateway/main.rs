//! The gateway against real engines in one process: what SQL does, what is pushed down, and what the server does to strangers.

#[allow(dead_code)]
#[path = "../../../client/tests/network/local.rs"]
mod local;

mod catalogue;
mod concurrent;
mod cursors;
mod ddl;
mod dml;
mod groups;
mod http;
mod liars;
mod public;
mod pushdown;
mod query;
mod real;
mod server;
mod streams;
mod transactions;
mod types;
