//! One module per command.

pub(crate) mod ceremony;
pub(crate) mod cluster;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod markdown;
pub(crate) mod operator;
pub(crate) mod proofs;
pub(crate) mod query;
pub(crate) mod service;
pub(crate) mod sql;
pub(crate) mod table;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod verify_export;
