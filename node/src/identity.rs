//! Keys of a node, from files: the Ed25519 identity, and the Ethereum key of its operator.
//!
//! Format  32 bytes as 64 hex digits and a newline.
//! Rule    a key file is read only if nobody but its owner may read it; a key appears in no argument, log or error.

use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use rand::rngs::OsRng;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Why a key file was not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not 64 hex digits.
    #[error("key file {0} does not hold 32 bytes of hex")]
    Format(PathBuf),
    /// Others may read it.
    #[error("key file {path} may be read by others (mode {mode:03o}); run: chmod 600 {path}")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Reads the node key at `path`, or makes one there.
///
/// # Errors
/// [`IdentityError`].
pub fn load_or_create(path: &Path) -> Result<NodeKey, IdentityError> {
    match load_secret(path) {
        Ok(secret) => Ok(NodeKey::new(secret)),
        Err(IdentityError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let secret = Secret::<32>::random(&mut OsRng);
            write_secret(path, &secret)?;
            Ok(NodeKey::new(secret))
        }
        Err(e) => Err(e),
    }
}

/// Writes a key file that only its owner may read; refuses to overwrite one.
///
/// # Errors
/// [`IdentityError::Io`].
pub fn write_secret(path: &Path, secret: &Secret<32>) -> Result<(), IdentityError> {
    let io = |source| IdentityError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io)?;
    let text = secret.expose(|bytes| {
        Secret::<65>::fill(|out| {
            hex::encode_to_slice(bytes, &mut out[..64]).expect("64 digits for 32 bytes");
            out[64] = b'\n';
        })
    });
    text.expose(|bytes| file.write_all(bytes)).and_then(|()| file.sync_all()).map_err(io)?;
    Ok(())
}

/// Reads a key file: the operator's Ethereum key, or an identity.
///
/// # Errors
/// [`IdentityError`].
pub fn load_secret(path: &Path) -> Result<Secret<32>, IdentityError> {
    let io = |source| IdentityError::Io { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(io)?;
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::MetadataExt::mode(&file.metadata().map_err(io)?) & 0o777;
        if mode & 0o077 != 0 {
            return Err(IdentityError::Permissions { path: path.to_owned(), mode });
        }
    }
    // Room for `0x`, 64 digits and a line end; one byte more shows that the file is too long.
    let mut len = 0;
    let mut failure = None;
    let text = Secret::<69>::fill(|buffer| {
        while len < buffer.len() {
            match file.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
    });
    if let Some(e) = failure {
        return Err(io(e));
    }
    let mut ok = false;
    let secret = Secret::<32>::fill(|out| {
        text.expose(|bytes| {
            let digits = bytes[..len].trim_ascii();
            let digits = digits.strip_prefix(b"0x").unwrap_or(digits);
            ok = len < bytes.len() && hex::decode_to_slice(digits, out).is_ok();
        });
    });
    if ok { Ok(secret) } else { Err(IdentityError::Format(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_identity_is_found_again_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/identity.key");
        let made = load_or_create(&path).unwrap();
        assert_eq!(load_or_create(&path).unwrap().id(), made.id());
        assert!(write_secret(&path, &Secret::random(&mut OsRng)).is_err());
        assert_eq!(std::fs::read(&path).unwrap().len(), 65);
    }

    #[test]
    fn accepts_hex_with_a_prefix_and_rejects_everything_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let digits = "ab".repeat(32);
        for (text, ok) in [
            (digits.clone(), true),
            (format!("0x{digits}\n"), true),
            (format!("0x{digits}\r\n"), true),
            (digits[1..].to_owned(), false),
            (format!("{digits}00"), false),
            ("x".repeat(64), false),
            (String::new(), false),
            (" ".repeat(500), false),
        ] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, &text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
            assert_eq!(load_secret(&path).is_ok(), ok, "{text:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn rejects_a_key_file_that_others_may_read_and_prints_no_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "cd".repeat(32)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let Err(e) = load_or_create(&path) else { panic!("accepted") };
        assert!(e.to_string().contains("644"), "{e}");
        assert!(!format!("{e} {e:?}").contains("cdcd"));
    }
}
