//! The keystore: the root key in a file encrypted by a passphrase, and beside it what is known of the owner's databases.
//!
//! ```text
//! PATH         age file, scrypt passphrase: canonical (format, 32 bytes root key). Written once.
//! PATH.state   canonical [`State`], sealed under a key that derives from the root key, with a fresh salt each time it is written
//! ```
//! Why two   the state changes with every block seen; scrypt costs a second, on purpose, and is paid only where the passphrase is asked for.
//! Rule      both files are replaced whole (write, fsync, rename, fsync of the folder) and readable by their owner only.
//!           The state is a cache: without it, phrase and network bring everything back ([`crate::session::Session::recover`]) but
//!           the last heights seen, which the network alone cannot vouch for.
//! Source    DESIGN section 5; age: <https://age-encryption.org/v1>

use crate::keyring::{KeyError, Keyring, Phrase};
use age::secrecy::SecretString;
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::aead::{self, AeadError};
use fluence_crypto::keys::RootKey;
use fluence_crypto::secret::Secret;
use fluence_types::block::Members;
use fluence_types::codec::{self, CodecError};
use fluence_types::segment::PublicSchema;
use fluence_types::{DatabaseId, Height, NodeId, ProjectionId, TableId};
use fluence_verifier::committee::Committee;
use rand::{CryptoRng, RngCore};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::{Zeroize, Zeroizing};

/// Format of the key file.
const FORMAT: u16 = 1;
/// Format of the state: 2 since it keeps committees with their vote keys and epochs.
const STATE_FORMAT: u16 = 2;
/// Longest key file.
const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// Longest state file.
const STATE_BYTES_MAX: usize = 64 << 20;
/// Tag of the state's key (not in `crypto::domain`, because it never leaves this file).
const STATE_TAG: &str = "FLU/client/keystore-state/v1";

/// Why a keystore could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeystoreError {
    /// The file system failed.
    #[error("{path}: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: io::Error,
    },
    /// A keystore is there already; it is never overwritten.
    #[error("{0} exists already; a keystore is never overwritten")]
    Exists(PathBuf),
    /// Wrong passphrase, or not a keystore.
    #[error("{path} does not open: {why}")]
    Locked {
        /// The file.
        path: PathBuf,
        /// What age says.
        why: String,
    },
    /// The state does not open under this root key.
    #[error("{path} does not open with this key: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// What the cipher says.
        why: AeadError,
    },
    /// It opens, and holds something else.
    #[error("{path}: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: CodecError,
    },
    /// Unknown format.
    #[error("{path} has format {got}, this program reads {reads}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        got: u16,
        /// The one that is read.
        reads: u16,
    },
    /// The passphrase is empty or cannot be had.
    #[error("passphrase: {0}")]
    Passphrase(String),
    /// Not a recovery phrase.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A passphrase. It comes from a file, the environment or a prompt; never from an argument.
pub struct Passphrase(SecretString);

impl Passphrase {
    /// Takes a passphrase.
    ///
    /// # Errors
    /// [`KeystoreError::Passphrase`] where it is empty.
    pub fn new(text: String) -> Result<Self, KeystoreError> {
        let mut text = text;
        while text.ends_with(['\n', '\r']) {
            text.pop();
        }
        if text.is_empty() {
            return Err(KeystoreError::Passphrase("it is empty".to_owned()));
        }
        Ok(Self(SecretString::from(text)))
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// [`KeystoreError::Passphrase`].
    pub fn from_file(path: &Path) -> Result<Self, KeystoreError> {
        let text = Zeroizing::new(
            fs::read_to_string(path).map_err(|e| KeystoreError::Passphrase(format!("{}: {e}", path.display())))?,
        );
        Self::new(text.lines().next().unwrap_or_default().to_owned())
    }

    /// An environment variable.
    ///
    /// # Errors
    /// [`KeystoreError::Passphrase`].
    pub fn from_env(name: &str) -> Result<Self, KeystoreError> {
        Self::new(std::env::var(name).map_err(|_| KeystoreError::Passphrase(format!("{name} is not set")))?)
    }
}

/// The work of opening a keystore: log2 of scrypt's N.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkFactor(pub u8);

impl WorkFactor {
    /// About a second.
    pub const DEFAULT: Self = Self(17);
    /// The least, for tests.
    pub const TEST: Self = Self(2);
    /// The most that is opened: above it, a prepared file could stop the program for hours.
    pub const MAX: Self = Self(22);
}

/// What is known of a database.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct KnownDatabase {
    /// A name for people.
    pub label: String,
    /// Its committee: at first as the owner signed it, then as each handed over to the next.
    pub members: Members,
    /// The first consensus epoch of that committee.
    pub since: u64,
    /// Its last one, where it is known that others follow.
    pub until: Option<u64>,
    /// Where members were reached last, as multiaddresses.
    pub addresses: Vec<(NodeId, String)>,
    /// The last certified height seen; nothing older is believed.
    pub last_seen: Height,
    /// Its tables.
    pub tables: Vec<KnownTable>,
}

/// What is known of a table.
#[derive(Clone, PartialEq, Eq, Debug, BorshSerialize, BorshDeserialize)]
pub struct KnownTable {
    /// The projection in key order.
    pub projection: ProjectionId,
    /// The table.
    pub table: TableId,
    /// Its sealed schema.
    pub public: PublicSchema,
}

/// Everything that changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct State {
    /// Known databases.
    pub databases: BTreeMap<DatabaseId, KnownDatabase>,
}

/// Keys and state, with the files they came from.
#[derive(Debug)]
pub struct Keystore {
    keyring: Arc<Keyring>,
    path: Option<PathBuf>,
    /// Known databases; [`Self::save`] writes it.
    pub state: State,
}

impl Keystore {
    /// A keystore without files.
    #[must_use]
    pub fn in_memory(keyring: Keyring) -> Self {
        Self { keyring: Arc::new(keyring), path: None, state: State::default() }
    }

    /// Writes a new keystore.
    ///
    /// # Errors
    /// [`KeystoreError`]; an existing one is never overwritten.
    pub fn create(
        path: &Path,
        passphrase: &Passphrase,
        keyring: Keyring,
        work: WorkFactor,
    ) -> Result<Self, KeystoreError> {
        if path.exists() {
            return Err(KeystoreError::Exists(path.to_owned()));
        }
        let mut plain = Zeroizing::new(codec::encode(&FORMAT));
        keyring.expose_root(|root| plain.extend_from_slice(root));
        let mut recipient = age::scrypt::Recipient::new(passphrase.0.clone());
        recipient.set_work_factor(work.0);
        let file = age::encrypt(&recipient, &plain)
            .map_err(|e| KeystoreError::Locked { path: path.to_owned(), why: e.to_string() })?;
        replace(path, &file)?;
        Ok(Self { keyring: Arc::new(keyring), path: Some(path.to_owned()), state: State::default() })
    }

    /// Writes a keystore of the keys of a recovery phrase.
    ///
    /// # Errors
    /// As [`Self::create`], and for a wrong phrase.
    pub fn restore(
        path: &Path,
        passphrase: &Passphrase,
        phrase: &Phrase,
        work: WorkFactor,
    ) -> Result<Self, KeystoreError> {
        Self::create(path, passphrase, Keyring::from_phrase(phrase)?, work)
    }

    /// Opens a keystore. A missing state file is an empty state.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn open(path: &Path, passphrase: &Passphrase) -> Result<Self, KeystoreError> {
        let file = read(path, KEY_FILE_BYTES_MAX)?;
        let locked = |why: String| KeystoreError::Locked { path: path.to_owned(), why };
        let mut identity = age::scrypt::Identity::new(passphrase.0.clone());
        identity.set_max_work_factor(WorkFactor::MAX.0);
        let plain = Zeroizing::new(age::decrypt(&identity, &file).map_err(|e| locked(e.to_string()))?);
        let (format, root) = plain.split_first_chunk::<2>().ok_or_else(|| locked("too short".to_owned()))?;
        let got = u16::from_le_bytes(*format);
        if got != FORMAT {
            return Err(KeystoreError::Format { path: path.to_owned(), got, reads: FORMAT });
        }
        let root = <&[u8; 32]>::try_from(root).map_err(|_| locked("not a root key".to_owned()))?;
        let keyring = Keyring::from_root(RootKey::new(Secret::fill(|to| to.copy_from_slice(root))));
        let mut keystore = Self { keyring: Arc::new(keyring), path: Some(path.to_owned()), state: State::default() };
        let state_path = state_path(path);
        if state_path.exists() {
            keystore.state = keystore.open_state(&state_path)?;
        }
        Ok(keystore)
    }

    fn open_state(&self, path: &Path) -> Result<State, KeystoreError> {
        let sealed = read(path, STATE_BYTES_MAX)?;
        let plain = aead::open_salted(&self.state_key(), STATE_TAG.as_bytes(), &sealed)
            .map_err(|why| KeystoreError::State { path: path.to_owned(), why })?;
        let content = |why| KeystoreError::Content { path: path.to_owned(), why };
        // The format first: what follows it is laid out differently in another one.
        let format = plain.first_chunk::<2>().map_or(0, |f| u16::from_le_bytes(*f));
        if format != STATE_FORMAT {
            return Err(KeystoreError::Format { path: path.to_owned(), got: format, reads: STATE_FORMAT });
        }
        let (_, state): (u16, State) = codec::decode("keystore state", &plain, STATE_BYTES_MAX).map_err(content)?;
        Ok(state)
    }

    fn state_key(&self) -> Secret<32> {
        self.keyring.expose_root(|root| {
            let mut hasher = blake3::Hasher::new_derive_key(STATE_TAG);
            hasher.update(root);
            let key = Secret::fill(|to| hasher.finalize_xof().fill(to));
            hasher.zeroize();
            key
        })
    }

    /// Writes the state; nothing where the keystore has no file.
    ///
    /// # Errors
    /// [`KeystoreError::Io`].
    pub fn save(&self, rng: &mut (impl CryptoRng + RngCore + ?Sized)) -> Result<(), KeystoreError> {
        let Some(path) = &self.path else { return Ok(()) };
        let plain = codec::encode(&(STATE_FORMAT, &self.state));
        let sealed = aead::seal_salted(&self.state_key(), STATE_TAG.as_bytes(), &plain, rng);
        replace(&state_path(path), &sealed)
    }

    /// The same, which never writes what it learns: for those who only look, while others write the file.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { path: None, ..self }
    }

    /// The keys.
    #[must_use]
    pub const fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// The key file, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Adds a database; what was known of it stays where `known` says less.
    pub fn remember(&mut self, id: DatabaseId, known: KnownDatabase) {
        let entry = self.state.databases.entry(id).or_insert_with(|| known.clone());
        entry.last_seen = entry.last_seen.max(known.last_seen);
        if known.since >= entry.since {
            entry.take(known.committee());
        }
        if !known.label.is_empty() {
            entry.label = known.label;
        }
        if !known.addresses.is_empty() {
            entry.addresses = known.addresses;
        }
        if !known.tables.is_empty() {
            entry.tables = known.tables;
        }
    }
}

impl KnownDatabase {
    /// A database of which only the committee is known.
    #[must_use]
    pub fn of(label: &str, committee: Committee) -> Self {
        let Committee { since, until, members } = committee;
        let (addresses, tables) = (Vec::new(), Vec::new());
        Self { label: label.to_owned(), members, since, until, addresses, last_seen: Height(0), tables }
    }

    /// The committee.
    #[must_use]
    pub fn committee(&self) -> Committee {
        Committee { since: self.since, until: self.until, members: self.members.clone() }
    }

    /// Takes another committee.
    pub(crate) fn take(&mut self, committee: Committee) {
        Committee { since: self.since, until: self.until, members: self.members } = committee;
    }
}

/// The state file beside a key file.
#[must_use]
pub fn state_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".state");
    path.with_file_name(name)
}

fn read(path: &Path, limit: usize) -> Result<Vec<u8>, KeystoreError> {
    let io = |why| KeystoreError::Io { path: path.to_owned(), why };
    let file = fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, limit as u64 + 1), &mut bytes).map_err(io)?;
    if bytes.len() > limit {
        let why = CodecError::TooLong { what: "keystore file", got: bytes.len(), limit };
        return Err(KeystoreError::Content { path: path.to_owned(), why });
    }
    Ok(bytes)
}

/// Replaces a file whole: after a crash it is the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), KeystoreError> {
    let io = |why| KeystoreError::Io { path: path.to_owned(), why };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder).map_err(io)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    drop(file);
    fs::rename(&temporary, path).map_err(io)?;
    fs::File::open(folder).and_then(|f| f.sync_all()).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn pass(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned()).unwrap()
    }

    #[test]
    fn keys_and_state_survive_and_open_with_the_passphrase_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/keys.age");
        let mut rng = StdRng::seed_from_u64(1);
        let keyring = Keyring::generate(&mut rng);
        let (address, phrase) = (keyring.address(), keyring.phrase());
        let mut keystore = Keystore::create(&path, &pass("one"), keyring, WorkFactor::TEST).unwrap();
        let id = DatabaseId::from_bytes([3; 16]);
        let member = |i| fluence_crypto::sign::NodeKey::new(Secret::new([i; 32])).member();
        let committee = |since, i| Committee::new(since, vec![member(i)].try_into().unwrap());
        let known = KnownDatabase::of("flights", committee(3, 1));
        keystore.remember(id, KnownDatabase { last_seen: Height(7), ..known.clone() });
        keystore.remember(id, KnownDatabase { last_seen: Height(5), ..known });
        assert_eq!(keystore.state.databases[&id].last_seen, Height(7), "heights never go back");
        keystore.remember(id, KnownDatabase::of("", committee(2, 2)));
        assert_eq!(keystore.state.databases[&id].committee(), committee(3, 1), "nor do committees");
        keystore.remember(id, KnownDatabase::of("", committee(4, 2)));
        assert_eq!(keystore.state.databases[&id].committee(), committee(4, 2));
        keystore.save(&mut rng).unwrap();

        let back = Keystore::open(&path, &pass("one")).unwrap();
        assert_eq!((back.keyring().address(), &back.state), (address, &keystore.state));
        assert!(matches!(Keystore::open(&path, &pass("two")), Err(KeystoreError::Locked { .. })));
        let again = Keystore::create(&path, &pass("one"), Keyring::generate(&mut rng), WorkFactor::TEST);
        assert!(matches!(again, Err(KeystoreError::Exists(_))));

        // Neither file holds the key, and a flipped byte in either is refused.
        let root = back.keyring().expose_root(|k| *k);
        for file in [path.clone(), state_path(&path)] {
            let bytes = fs::read(&file).unwrap();
            assert!(!bytes.windows(32).any(|w| w == root));
            for at in [bytes.len() / 2, bytes.len() - 1] {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                fs::write(&file, bad).unwrap();
                assert!(Keystore::open(&path, &pass("one")).is_err(), "{} byte {at}", file.display());
            }
            fs::write(&file, bytes).unwrap();
        }
        let other = folder.path().join("other.age");
        let restored = Keystore::restore(&other, &pass("x"), &phrase, WorkFactor::TEST).unwrap();
        assert_eq!(restored.keyring().address(), address);
        // The state of another key does not open.
        let stranger = folder.path().join("stranger.age");
        Keystore::create(&stranger, &pass("x"), Keyring::generate(&mut rng), WorkFactor::TEST).unwrap();
        fs::copy(state_path(&path), state_path(&stranger)).unwrap();
        assert!(matches!(Keystore::open(&stranger, &pass("x")), Err(KeystoreError::State { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.age");
        let keyring = Keyring::generate(&mut StdRng::seed_from_u64(1));
        Keystore::create(&path, &pass("one"), keyring, WorkFactor::TEST).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn empty_passphrases_are_refused() {
        assert!(Passphrase::new("\n".to_owned()).is_err());
        assert!(Passphrase::from_env("FLUENCE_NO_SUCH_VARIABLE").is_err());
    }
}
