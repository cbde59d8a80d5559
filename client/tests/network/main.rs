//! The client against real engines in one process: whole flows, lies, recovery.

mod cluster;
mod data;
mod exports;
mod flows;
mod fresh;
mod group;
mod leases;
mod lies;
mod local;
mod membership;
mod public;
mod recovery;
mod scans;
mod small;
mod transactions;
