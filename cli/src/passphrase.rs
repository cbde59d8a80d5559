//! Where passphrases and recovery phrases come from: a file, a file named by the environment, or a prompt. Never an argument.

use crate::args::Unlock;
use crate::error::{Context, Failure, Help, Result};
use fluence_client::keyring::Phrase;
use fluence_client::keystore::Passphrase;
use std::io::{IsTerminal, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// Longest secret file that is read.
const SECRET_BYTES_MAX: u64 = 4096;
/// Shortest passphrase for a new keystore: an attacker with the file tries as many as scrypt lets them.
const PASSPHRASE_CHARS_MIN: usize = 8;

const HOW: &str =
    "name a file with --passphrase-file FILE or FLUENCE_PASSPHRASE_FILE, or run in a terminal to be asked";

/// The passphrase of an existing keystore.
pub(crate) fn existing(unlock: &Unlock) -> Result<Passphrase> {
    seal(match &unlock.passphrase_file {
        Some(path) => first_line(path, "passphrase")?,
        None => prompt("Passphrase: ")?,
    })
}

/// Moves the text into the client's own type, which wipes it too.
fn seal(mut text: Zeroizing<String>) -> Result<Passphrase> {
    Passphrase::new(std::mem::take(&mut *text)).usage("the passphrase cannot be used").or_help(HOW)
}

/// A passphrase for a new keystore: asked twice in a terminal.
pub(crate) fn chosen(unlock: &Unlock) -> Result<Passphrase> {
    let passphrase = match &unlock.passphrase_file {
        Some(path) => first_line(path, "passphrase")?,
        None => {
            let first = prompt("New passphrase: ")?;
            let again = prompt("Again: ")?;
            if *first != *again {
                return Err(Failure::usage("the two passphrases differ").help("run the command again"));
            }
            first
        }
    };
    if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(Failure::usage(format!("the passphrase has fewer than {PASSPHRASE_CHARS_MIN} characters"))
            .help("take a longer one: it is all that protects the keystore file"));
    }
    seal(passphrase)
}

/// A recovery phrase: from a file, from standard input for `-`, or asked.
pub(crate) fn recovery_phrase(file: Option<&Path>) -> Result<Phrase> {
    let mut text = match file {
        Some(path) if path == Path::new("-") => read_all(&mut std::io::stdin().lock(), "standard input")?,
        Some(path) => first_line(path, "recovery phrase")?,
        None => prompt("Recovery phrase (24 words): ")?,
    };
    Ok(Phrase::new(std::mem::take(&mut *text)))
}

/// The first line of a file that only its owner may read.
pub(crate) fn first_line(path: &Path, what: &str) -> Result<Zeroizing<String>> {
    let mut file = std::fs::File::open(path)
        .doing(format!("cannot read the {what} file {}", path.display()))
        .or_help("check the path, and that the file is readable by you")?;
    warn_if_open_to_others(&file, path);
    read_all(&mut file, &path.display().to_string())
}

fn read_all(source: &mut dyn Read, name: &str) -> Result<Zeroizing<String>> {
    // One allocation, so that no shorter copy of the secret is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(SECRET_BYTES_MAX as usize + 1));
    source.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).doing(format!("cannot read {name}"))?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(Failure::usage(format!("{name} is longer than {SECRET_BYTES_MAX} bytes")));
    }
    let line = Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned());
    if line.is_empty() {
        return Err(Failure::usage(format!("the first line of {name} is empty")));
    }
    Ok(line)
}

fn warn_if_open_to_others(file: &std::fs::File, path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o077 != 0) {
        eprintln!("warning: {} can be read by others; chmod 600 it", path.display());
    }
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("a secret is needed, and there is no terminal to ask at").help(HOW));
    }
    rpassword::prompt_password(text).map(Zeroizing::new).doing("cannot ask for a secret").or_help(HOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_first_line_and_refuses_an_empty_or_long_file() {
        let read = |text: &str| read_all(&mut text.as_bytes(), "f");
        assert_eq!(**read("correct horse \nnot this").as_ref().unwrap(), *"correct horse");
        assert!(read("\nsecond").is_err());
        assert!(read(&"x".repeat(5000)).is_err());
    }
}
