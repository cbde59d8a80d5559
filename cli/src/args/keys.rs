//! `init` and `keys`: a home, and its root key.

use super::{Place, Unlock};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `init`.
#[derive(Args, Debug, Clone)]
#[command(after_help = "\
Examples:
  fluence init
  fluence init --node /ip4/127.0.0.1/tcp/4401/p2p/12D3KooW...
  fluence init --no-keystore --home ./scratch")]
pub(crate) struct Init {
    #[command(flatten)]
    pub(crate) place: Place,
    /// JSON-RPC address of the chain
    #[arg(long, value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// Address of the EpochProofs contract
    #[arg(long, value_name = "ADDR")]
    pub(crate) contract: Option<String>,
    /// File that says where all contracts are
    #[arg(long, value_name = "FILE")]
    pub(crate) deployment: Option<PathBuf>,
    /// Make no keystore; `fluence keys new` or `keys restore` makes it later
    #[arg(long)]
    pub(crate) no_keystore: bool,
    #[command(flatten)]
    pub(crate) unlock: Unlock,
}

/// `keys`.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Keys {
    /// Make a root key, encrypted in the home's keystore, and print its recovery phrase once
    #[command(after_help = "\
Examples:
  fluence keys new
  fluence keys new --passphrase-file ~/.secret/fluence --phrase-out /media/usb/phrase.txt")]
    New(KeysNew),
    /// Print the recovery phrase again
    #[command(after_help = "\
Examples:
  fluence keys backup                         asks for the passphrase, prints the phrase
  fluence keys backup --phrase-out phrase.txt     a file that only you can read")]
    Backup(KeysBackup),
    /// Make the keystore from a recovery phrase
    #[command(after_help = "\
Examples:
  fluence keys restore                        asks for the phrase and a new passphrase
  fluence keys restore --phrase-file phrase.txt --passphrase-file ~/.secret/fluence")]
    Restore(KeysRestore),
}

/// `keys new`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysNew {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// Write the recovery phrase to a new file (mode 0600) rather than to the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_out: Option<PathBuf>,
}

/// `keys backup`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysBackup {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// Write the recovery phrase to a new file (mode 0600) rather than to the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_out: Option<PathBuf>,
}

/// `keys restore`.
#[derive(Args, Debug, Clone)]
pub(crate) struct KeysRestore {
    #[command(flatten)]
    pub(crate) unlock: Unlock,
    /// File with the recovery phrase; `-` reads standard input; without it, you are asked
    #[arg(long, value_name = "FILE")]
    pub(crate) phrase_file: Option<PathBuf>,
}
