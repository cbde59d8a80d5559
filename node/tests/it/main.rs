//! A node as others meet it. One binary, so that libp2p and the prover are linked once.
#![allow(unreachable_pub, reason = "items are shared by the modules of this binary")]

mod anchoring;
mod anvil;
mod cluster;
mod cluster_net;
mod common;
mod hour;
mod net;
mod service;
mod twin;
