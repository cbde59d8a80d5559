//! The home: `config.toml`, the keystore, caches and proofs of one owner.
//!
//! ```text
//! config.toml       databases by name (id, nodes), chain (rpc, contract, deployment)
//! keystore.age      the root key, encrypted under the passphrase; keystore.age.state beside it: databases, tables, heights seen
//! proofs/           proof files made by `query --prove`
//! keys/             proving and verification keys made on this machine (or in $FLUENCE_KEYS)
//! ```
//! Rule    the folder is 0700, files with secrets 0600; the configuration holds no secret.

use crate::error::{Context, Failure, Help, Result};
use fluence_types::DatabaseId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The folder.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// `config.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Databases by the name that `--db` takes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) databases: BTreeMap<String, Database>,
    /// The chain that `verify` and `doctor` ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<Chain>,
}

/// A database of the owner's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Database {
    /// Its id; chosen at random when the first table is imported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<DatabaseId>,
    /// Addresses of the nodes that keep it, with their ids: `/ip4/../tcp/../p2p/..`. A single one may be written as `node`.
    #[serde(default, alias = "node", deserialize_with = "one_or_more", skip_serializing_if = "Vec::is_empty")]
    pub(crate) nodes: Vec<String>,
    /// The id for which members are being drawn on chain: it can be drawn for once, so an interrupted command goes on with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) draw: Option<DatabaseId>,
}

fn one_or_more<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMore {
        One(String),
        More(Vec<String>),
    }
    Ok(match OneOrMore::deserialize(from)? {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    })
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chain {
    /// JSON-RPC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rpc: Option<String>,
    /// Address of the contract that pins verification keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) contract: Option<String>,
    /// File that says where all contracts are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deployment: Option<PathBuf>,
}

impl Home {
    /// The home that the flag or the environment names, else `~/.fluence`. Nothing is made.
    pub(crate) fn locate(flag: Option<&Path>) -> Result<Self> {
        let dir = match flag {
            Some(dir) if dir.as_os_str().is_empty() => return Err(Failure::usage("--home is empty")),
            Some(dir) => dir.to_owned(),
            None => std::env::home_dir()
                .filter(|d| !d.as_os_str().is_empty())
                .ok_or_else(|| Failure::usage("this account has no home directory").help("name one with --home DIR"))?
                .join(".fluence"),
        };
        Ok(Self { dir })
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
    /// The configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.join("config.toml")
    }
    /// The keystore file.
    pub(crate) fn keystore(&self) -> PathBuf {
        self.dir.join("keystore.age")
    }
    /// Proof files.
    pub(crate) fn proofs(&self) -> PathBuf {
        self.dir.join("proofs")
    }
    /// Proving keys: `$FLUENCE_KEYS`, else in the home.
    pub(crate) fn prover_keys(&self) -> PathBuf {
        std::env::var_os("FLUENCE_KEYS").filter(|v| !v.is_empty()).map_or_else(|| self.dir.join("keys"), PathBuf::from)
    }

    /// Makes the folders; true if the home is new.
    pub(crate) fn create(&self) -> Result<bool> {
        let new = !self.config_path().exists();
        for dir in [self.dir.clone(), self.proofs()] {
            private_dir(&dir)?;
        }
        if new {
            self.save(&Config::default())?;
        }
        Ok(new)
    }

    /// Reads the configuration; a missing file is an empty one.
    pub(crate) fn config(&self) -> Result<Config> {
        let path = self.config_path();
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .usage(format!("{} is not valid", path.display()))
                .or_help("correct the file, or move it away and run `fluence init`"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(e) => Err(e).doing(format!("cannot read {}", path.display())),
        }
    }

    /// Writes the configuration: whole or not at all.
    pub(crate) fn save(&self, config: &Config) -> Result<()> {
        let text = toml::to_string_pretty(config).expect("the configuration is tables of text and numbers");
        let text = format!("# Fluence: databases and chain of this home. Holds no secret.\n{text}");
        replace_file(&self.config_path(), text.as_bytes())
    }
}

/// Makes a folder that only its owner can enter.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .doing(format!("cannot make {}", dir.display()))
        .or_help("name another home with --home DIR, or make the folder writable")
}

/// Writes a file through a temporary neighbour and a rename, synced.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let part = path.with_extension("part");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().doing(format!("cannot write {}", path.display()))
}

/// Writes a new file that only its owner can read; refuses to replace one.
pub(crate) fn private_file(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().doing(format!("cannot write {}", path.display())).or_help("choose a file that does not exist yet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_one_or_as_a_list_and_nothing_else() {
        let read = |text: &str| toml::from_str::<Config>(text).map(|c| c.databases["main"].nodes.clone());
        assert_eq!(read("[databases.main]\nnode = \"a\"\n").unwrap(), ["a"]);
        assert_eq!(read("[databases.main]\nnodes = [\"a\", \"b\"]\n").unwrap(), ["a", "b"]);
        assert!(read("[databases.main]\n").unwrap().is_empty());
        assert!(read("[databases.main]\nnodes = 7\n").is_err());
        let config = toml::from_str::<Config>("[databases.main]\nnode = \"a\"\n").unwrap();
        assert_eq!(toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }
}
