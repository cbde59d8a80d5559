//! The client against real engines in one process: whole flows, lies, recovery.

mod cluster;
mod data;
mod flows;
mod lies;
mod local;
mod membership;
mod recovery;
