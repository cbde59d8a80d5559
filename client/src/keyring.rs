//! The owner's keys: root key, recovery phrase, and what a table's segments and schemas are sealed with.
//!
//! Rule    24 words bring back the root key, and with the network everything else: segment keys follow from segment ids in the headers,
//!         schemas are kept by the nodes, sealed under a key that needs the database and table id only. Of a table with public columns
//!         they keep besides, in clear, what everyone needs to read these.
//! Source  DESIGN section 5; BIP-39 (the words encode the root key itself; no passphrase, no stretching: it has 256 bits)

use crate::schema::{SchemaError, TableSchema};
use bip39::{Language, Mnemonic};
use borsh::{BorshDeserialize, BorshSerialize};
use fluence_crypto::aead::{self, AeadError};
use fluence_crypto::keys::{RootKey, TableKey};
use fluence_crypto::roots;
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::{self, OwnerKey};
use fluence_types::codec::{self, Bounded, CodecError};
use fluence_types::limits::DESCRIPTION_BYTES_MAX;
use fluence_types::op::{SignedOp, UnsignedOp};
use fluence_types::segment::PublicSchema;
use fluence_types::{Address, DatabaseId, SchemaHash, SegmentId, TableId};
use rand::{CryptoRng, RngCore};
use zeroize::{Zeroize, Zeroizing};

/// Words of a recovery phrase.
pub const PHRASE_WORDS: usize = 24;
/// The key epoch that new tables start in.
pub const FIRST_KEY_EPOCH: u64 = 0;

/// Why keys or schemas could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not a recovery phrase. The words are not repeated here.
    #[error("not a recovery phrase of {PHRASE_WORDS} English words with a right checksum")]
    Phrase,
    /// A sealed schema does not open: another owner's, or another table's.
    #[error("the schema of table {table} does not open with this key: {why}")]
    Sealed {
        /// The table.
        table: TableId,
        /// What the cipher says.
        why: AeadError,
    },
    /// It opens, and holds something else.
    #[error("the schema of table {table}: {why}")]
    Content {
        /// The table.
        table: TableId,
        /// What is wrong.
        why: CodecError,
    },
    /// It holds a schema that breaks a rule.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The schema is too long to seal.
    #[error("the schema takes {0} bytes, sealed and with what is public, the limit is {DESCRIPTION_BYTES_MAX}")]
    TooLong(usize),
}

/// A recovery phrase: wiped when dropped, printed only by [`Self::expose`].
pub struct Phrase(Zeroizing<String>);

impl Phrase {
    /// Takes text as typed; checked by [`Keyring::from_phrase`].
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
    /// Lends the words.
    pub fn expose<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        f(&self.0)
    }
}

/// The owner's root key and signing key.
pub struct Keyring {
    root: RootKey,
    owner: OwnerKey,
}

/// Debug names the owner's public address only.
impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({})", self.address())
    }
}

impl Keyring {
    /// Fresh keys.
    #[must_use]
    pub fn generate(rng: &mut (impl CryptoRng + RngCore)) -> Self {
        Self::from_root(RootKey::random(rng))
    }

    /// The keys below a root key.
    #[must_use]
    pub fn from_root(root: RootKey) -> Self {
        let owner = root.owner_key();
        Self { root, owner }
    }

    /// The keys of a recovery phrase.
    ///
    /// # Errors
    /// [`KeyError::Phrase`].
    pub fn from_phrase(phrase: &Phrase) -> Result<Self, KeyError> {
        let normal =
            Zeroizing::new(phrase.expose(|t| t.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()));
        let mnemonic =
            Zeroizing::new(Mnemonic::parse_in_normalized(Language::English, &normal).map_err(|_| KeyError::Phrase)?);
        let entropy = Zeroizing::new(mnemonic.to_entropy());
        let bytes = <&[u8; 32]>::try_from(entropy.as_slice()).map_err(|_| KeyError::Phrase)?;
        Ok(Self::from_root(RootKey::new(Secret::fill(|to| to.copy_from_slice(bytes)))))
    }

    /// The recovery phrase.
    ///
    /// # Panics
    /// Never: 32 bytes always make 24 words.
    #[must_use]
    pub fn phrase(&self) -> Phrase {
        let make = |root: &[u8; 32]| Mnemonic::from_entropy_in(Language::English, root).expect("32 bytes are 24 words");
        let mnemonic = Zeroizing::new(self.root.expose(make));
        Phrase::new(mnemonic.to_string())
    }

    /// Lends the root key, for the keystore.
    pub(crate) fn expose_root<R>(&self, f: impl FnOnce(&[u8; 32]) -> R) -> R {
        self.root.expose(f)
    }

    /// The owner's address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.owner.address()
    }

    /// Signs an operation as its writer.
    #[must_use]
    pub fn sign(&self, op: UnsignedOp) -> SignedOp {
        sign::sign_op(op, &self.owner)
    }

    /// Signs a hash, for registrations on chain.
    #[must_use]
    pub fn sign_prehash(&self, prehash: [u8; 32]) -> fluence_types::op::OwnerSignature {
        self.owner.sign_prehash(prehash)
    }

    /// The key of a table.
    #[must_use]
    pub fn table_key(&self, db: &DatabaseId, table: &TableId, key_epoch: u64) -> TableKey {
        self.root.table(db, table, key_epoch)
    }

    /// The id of a segment of this plaintext, from 32 fresh random bytes.
    #[must_use]
    pub fn segment_id(&self, random: &[u8; 32], plaintext_digest: &[u8; 32]) -> SegmentId {
        self.root.segment_id(random, plaintext_digest)
    }

    /// Seals a schema for the nodes to keep.
    ///
    /// # Errors
    /// [`KeyError::TooLong`].
    pub fn seal_schema(
        &self,
        db: &DatabaseId,
        table: &TableId,
        schema: &TableSchema,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<PublicSchema, KeyError> {
        let described = |schema| DescribedSchema { key_epoch: FIRST_KEY_EPOCH, schema };
        let mut plain = codec::encode(&described(schema.clone()));
        let key = self.root.schema_key(db, table);
        let sealed = aead::seal_salted(&key, &schema_aad(db, table), &plain, rng);
        plain.zeroize();
        let open = schema.open_part().map(described);
        let description = codec::encode(&Description { format: Description::FORMAT, open, sealed });
        let description = Bounded::new(description).map_err(|e| KeyError::TooLong(e.got))?;
        Ok(PublicSchema { lanes: schema.lane_kinds(), description })
    }

    /// Opens a schema that a node kept, and checks that it is one and that the lanes are its lanes.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open_schema(&self, db: &DatabaseId, table: &TableId, public: &PublicSchema) -> Result<Table, KeyError> {
        let Description { open, sealed, .. } = Description::of(table, public)?;
        let key = self.root.schema_key(db, table);
        let plain = aead::open_salted(&key, &schema_aad(db, table), &sealed)
            .map_err(|why| KeyError::Sealed { table: *table, why })?;
        let plain = Zeroizing::new(plain);
        let content: DescribedSchema = codec::decode("sealed schema", &plain, DESCRIPTION_BYTES_MAX)
            .map_err(|why| KeyError::Content { table: *table, why })?;
        let told = open.map(|o| (o.key_epoch, o.schema));
        if told != content.schema.open_part().map(|part| (content.key_epoch, part)) {
            return Err(KeyError::Schema(SchemaError::Open));
        }
        content.table(public)
    }
}

/// What a schema says in clear of its public columns; `None` where it has none. Whoever wrote it, the catalogue names its hash.
///
/// # Errors
/// [`KeyError`] where it is malformed.
pub fn open_part(table: &TableId, public: &PublicSchema) -> Result<Option<Table>, KeyError> {
    let Some(open) = Description::of(table, public)?.open else { return Ok(None) };
    if open.schema.columns().iter().any(|c| !c.public) {
        return Err(KeyError::Schema(SchemaError::Open));
    }
    open.table(public).map(Some)
}

/// A schema with the key epoch of its segments.
#[derive(BorshSerialize, BorshDeserialize)]
struct DescribedSchema {
    key_epoch: u64,
    schema: TableSchema,
}

impl DescribedSchema {
    /// Itself, checked, as the table of a schema that nodes keep.
    fn table(self, public: &PublicSchema) -> Result<Table, KeyError> {
        self.schema.check()?;
        if self.schema.lane_kinds() != public.lanes {
            return Err(KeyError::Schema(SchemaError::Lanes));
        }
        Ok(Table { schema: self.schema, key_epoch: self.key_epoch, hash: roots::schema_hash(public) })
    }
}

/// What an owner says of a table: [`PublicSchema::description`].
#[derive(BorshSerialize, BorshDeserialize)]
struct Description {
    format: u16,
    /// What everyone is told of an open table: [`TableSchema::open_part`].
    open: Option<DescribedSchema>,
    /// A [`DescribedSchema`] under the table's schema key.
    sealed: Vec<u8>,
}

impl Description {
    const FORMAT: u16 = 2;

    fn of(table: &TableId, public: &PublicSchema) -> Result<Self, KeyError> {
        let malformed = |why| KeyError::Content { table: *table, why };
        // The format first: what follows is read as its own.
        let format = public.description.first_chunk().map(|head| u16::from_le_bytes(*head));
        if format != Some(Self::FORMAT) {
            let why = format!("format {}, this program reads {}", format.unwrap_or_default(), Self::FORMAT);
            return Err(malformed(CodecError::Malformed { what: "schema", why }));
        }
        codec::decode("schema", &public.description, DESCRIPTION_BYTES_MAX).map_err(malformed)
    }
}

/// An opened schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// The columns, key and sums.
    pub schema: TableSchema,
    /// The key epoch of its segments.
    pub key_epoch: u64,
    /// The hash by which segments and catalogue name it.
    pub hash: SchemaHash,
}

fn schema_aad(db: &DatabaseId, table: &TableId) -> Vec<u8> {
    codec::encode(&(*db, *table))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;
    use crate::value::ColumnType;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn the_phrase_brings_the_keys_back() {
        let keys = Keyring::generate(&mut StdRng::seed_from_u64(1));
        let phrase = keys.phrase();
        assert_eq!(phrase.expose(|p| p.split(' ').count()), PHRASE_WORDS);
        let back = Keyring::from_phrase(&phrase).unwrap();
        assert_eq!(back.address(), keys.address());
        assert!(back.expose_root(|a| keys.expose_root(|b| a == b)));
        let shouted = Phrase::new(phrase.expose(|p| format!("  {}\n", p.to_uppercase())));
        assert_eq!(Keyring::from_phrase(&shouted).unwrap().address(), keys.address());
    }

    #[test]
    fn rejects_wrong_phrases_without_repeating_them() {
        let good = Keyring::generate(&mut StdRng::seed_from_u64(1)).phrase();
        let words = good.expose(|p| p.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let mut swapped = words.clone();
        swapped.swap(0, 1);
        let twelve = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        for bad in ["", "hello world", &words[..23].join(" "), &swapped.join(" "), twelve] {
            let error = Keyring::from_phrase(&Phrase::new(bad.to_owned())).unwrap_err().to_string();
            assert!(!bad.split(' ').any(|w| w.len() > 3 && error.contains(w)), "{error}");
        }
    }

    #[test]
    fn schemas_open_for_their_owner_and_table_only() {
        let mut rng = StdRng::seed_from_u64(2);
        let keys = Keyring::generate(&mut rng);
        let schema = TableSchema::new("t", vec![Column::new("a", ColumnType::Int64)], &["a"], vec![]).unwrap();
        let (db, table) = (DatabaseId::from_bytes([1; 16]), TableId(3));
        let public = keys.seal_schema(&db, &table, &schema, &mut rng).unwrap();
        let opened = keys.open_schema(&db, &table, &public).unwrap();
        assert_eq!((opened.schema, opened.hash), (schema.clone(), roots::schema_hash(&public)));
        assert!(matches!(keys.open_schema(&db, &TableId(4), &public), Err(KeyError::Sealed { .. })));
        let other = Keyring::generate(&mut rng);
        assert!(matches!(other.open_schema(&db, &table, &public), Err(KeyError::Sealed { .. })));
        let mut lanes = public.lanes.to_vec();
        lanes.pop();
        let lie = PublicSchema { lanes: Bounded::new(lanes).unwrap(), description: public.description };
        assert!(matches!(keys.open_schema(&db, &table, &lie), Err(KeyError::Schema(SchemaError::Lanes))));
    }

    #[test]
    fn strangers_are_told_what_is_public_and_owners_that_it_is_what_they_said() {
        let mut rng = StdRng::seed_from_u64(2);
        let keys = Keyring::generate(&mut rng);
        let (db, table) = (DatabaseId::from_bytes([1; 16]), TableId(3));
        let columns = vec![Column::new("a", ColumnType::Int64).public(), Column::new("b", ColumnType::Text)];
        let schema = TableSchema::new("t", columns, &["a"], vec![]).unwrap();
        let public = keys.seal_schema(&db, &table, &schema, &mut rng).unwrap();
        assert_eq!(keys.open_schema(&db, &table, &public).unwrap().schema, schema);
        let told = open_part(&table, &public).unwrap().unwrap();
        assert_eq!((Some(told.schema), told.hash), (schema.open_part(), roots::schema_hash(&public)));
        let sealed = |name: &str| {
            let columns = vec![Column::new("a", ColumnType::Int64), Column::new(name, ColumnType::Text)];
            TableSchema::new("t", columns, &["a"], vec![]).unwrap()
        };
        let secret = keys.seal_schema(&db, &table, &sealed("b"), &mut rng).unwrap();
        assert_eq!(open_part(&table, &secret).unwrap(), None);

        // Whoever says otherwise in clear than what is sealed is caught by the owner; what is not public, by everyone.
        let lie = |change: &dyn Fn(&mut Description)| {
            let mut said = Description::of(&table, &public).unwrap();
            change(&mut said);
            PublicSchema { description: Bounded::new(codec::encode(&said)).unwrap(), ..public.clone() }
        };
        let renamed = |schema: TableSchema| Some(DescribedSchema { key_epoch: 0, schema });
        let other = TableSchema::new("u", vec![Column::new("a", ColumnType::Int64).public()], &["a"], vec![]).unwrap();
        for lie in [lie(&|d| d.open = None), lie(&|d| d.open = renamed(other.clone()))] {
            assert!(matches!(keys.open_schema(&db, &table, &lie), Err(KeyError::Schema(SchemaError::Open))));
        }
        let refused = open_part(&table, &lie(&|d| d.open = renamed(sealed("c")))).unwrap_err();
        assert!(matches!(refused, KeyError::Schema(SchemaError::Open)), "{refused}");
        let refused = open_part(&table, &lie(&|d| d.open = renamed(other.clone()))).unwrap_err();
        assert!(matches!(refused, KeyError::Schema(SchemaError::Lanes)), "{refused}");
        let refused = open_part(&table, &lie(&|d| d.format = 1)).unwrap_err();
        assert!(refused.to_string().contains("format 1, this program reads 2"), "{refused}");
        let cut = PublicSchema { description: Bounded::new(public.description[..9].to_vec()).unwrap(), ..public };
        assert!(open_part(&table, &cut).is_err() && keys.open_schema(&db, &table, &cut).is_err());
    }
}
