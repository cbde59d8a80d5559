//! `fluence keys`: the root key and its recovery phrase.
//!
//! Rule    the phrase is shown where the user asked for it, once, and is in no log, error or argument. A keystore is never overwritten.

use crate::args::{Keys, KeysBackup, KeysNew, KeysRestore, Unlock};
use crate::error::{Context, Failure, Help, Result};
use crate::home::{Home, private_file};
use crate::output::Out;
use crate::passphrase;
use fluence_client::keyring::{Keyring, Phrase};
use fluence_client::keystore::{Keystore, KeystoreError, WorkFactor};
use rand::rngs::OsRng;
use serde_json::{Value, json};
use std::path::Path;

const KEEP: &str =
    "Write these 24 words down and keep them away from this machine. With them and the network, everything comes back;
whoever has them, has your data.";

pub(crate) fn run(command: &Keys, home: &Home, out: &Out) -> Result<()> {
    match command {
        Keys::New(KeysNew { unlock, phrase_out }) => {
            home.create()?;
            let keystore = create(home, unlock)?;
            out.note(format!("owner {}, keystore {}", keystore.keyring().address(), home.keystore().display()));
            tell(&keystore, home, phrase_out.as_deref(), out)
        }
        Keys::Backup(KeysBackup { unlock, phrase_out }) => {
            let keystore = open(home, unlock)?;
            tell(&keystore, home, phrase_out.as_deref(), out)
        }
        Keys::Restore(args) => restore(args, home, out),
    }
}

/// Makes a keystore of fresh keys.
pub(crate) fn create(home: &Home, unlock: &Unlock) -> Result<Keystore> {
    refuse_second(home)?;
    let passphrase = passphrase::chosen(unlock)?;
    let path = home.keystore();
    Keystore::create(&path, &passphrase, Keyring::generate(&mut OsRng), WorkFactor::DEFAULT)
        .map_err(|e| failure(e, "cannot make the keystore"))
}

/// Opens the home's keystore.
pub(crate) fn open(home: &Home, unlock: &Unlock) -> Result<Keystore> {
    let path = home.keystore();
    if !path.exists() {
        return Err(Failure::failed(format!("there is no keystore at {}", path.display()))
            .help("run `fluence keys new`, or `fluence keys restore` with a recovery phrase"));
    }
    let passphrase = passphrase::existing(unlock)?;
    Keystore::open(&path, &passphrase).map_err(|e| failure(e, "cannot open the keystore"))
}

fn restore(args: &KeysRestore, home: &Home, out: &Out) -> Result<()> {
    refuse_second(home)?;
    let phrase = passphrase::recovery_phrase(args.phrase_file.as_deref())?;
    // Before the passphrase is asked: a mistyped word is found at once.
    let keyring = Keyring::from_phrase(&phrase)
        .doing("the recovery phrase is not one")
        .or_help("24 English words in their order; check spelling and order")?;
    let passphrase = passphrase::chosen(&args.unlock)?;
    home.create()?;
    let keystore = Keystore::create(&home.keystore(), &passphrase, keyring, WorkFactor::DEFAULT)
        .map_err(|e| failure(e, "cannot make the keystore"))?;
    let value = json!({ "owner": keystore.keyring().address(), "keystore": home.keystore() });
    out.result(&value, |out| {
        out.line(format!("owner {}, keystore {}", keystore.keyring().address(), home.keystore().display()));
        out.note("databases are found again by `fluence init --node ADDR` and the next query");
    });
    Ok(())
}

/// Shows the phrase, or writes it to a file.
fn tell(keystore: &Keystore, home: &Home, phrase_out: Option<&Path>, out: &Out) -> Result<()> {
    let phrase: Phrase = keystore.keyring().phrase();
    let mut value = json!({ "owner": keystore.keyring().address(), "keystore": home.keystore() });
    if let Some(path) = phrase_out {
        phrase.expose(|words| private_file(path, format!("{words}\n").as_bytes()))?;
        value["phrase_file"] = json!(path);
        out.result(&value, |out| {
            out.line(format!("recovery phrase in {}; move it away from this machine", path.display()))
        });
        return Ok(());
    }
    if out.is_json() {
        phrase.expose(|words| value["phrase"] = Value::from(words));
        out.json(&value);
        return Ok(());
    }
    out.note(KEEP);
    phrase.expose(|words| {
        for (i, line) in words.split(' ').collect::<Vec<_>>().chunks(6).enumerate() {
            out.line(format!("  {:>2}  {}", i * 6 + 1, line.join(" ")));
        }
    });
    Ok(())
}

fn refuse_second(home: &Home) -> Result<()> {
    let path = home.keystore();
    if path.exists() {
        return Err(Failure::failed(format!("there is a keystore at {} already", path.display()))
            .help("it is never overwritten: use another home (--home DIR), or move the file away"));
    }
    Ok(())
}

fn failure(error: KeystoreError, what: &str) -> Failure {
    let help = match &error {
        KeystoreError::Locked { .. } => {
            "wrong passphrase? `fluence keys restore` makes a new keystore from the recovery phrase"
        }
        KeystoreError::State { .. } | KeystoreError::Content { .. } => {
            "the state beside the keystore is damaged: move it away, and the network brings it back"
        }
        KeystoreError::Exists(_) => "use another home (--home DIR), or move the file away",
        _ => "check that the folder is there and that you may write to it",
    };
    Failure::failed(what).because(error).help(help)
}
