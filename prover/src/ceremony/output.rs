//! A file that is whole or absent: hashed while it is written, synced, renamed.

use super::error::{CeremonyError, io};
use blake2::{Blake2b512, Digest};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A file being written under a temporary name; dropped unfinished it is removed.
pub(super) struct Output {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
    blake2: Blake2b512,
    blake3: blake3::Hasher,
}

impl Output {
    /// Refuses to replace a file: a ceremony's files are history.
    pub(super) fn create(path: &Path) -> Result<Self, CeremonyError> {
        let exists =
            || io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name, and it is not replaced");
        if path.exists() {
            return Err(io(path)(exists()));
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".tmp-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(io(&temporary))?;
        let file = Some(BufWriter::with_capacity(1 << 20, file));
        Ok(Self { path: path.to_owned(), temporary, file, blake2: Blake2b512::new(), blake3: blake3::Hasher::new() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), CeremonyError> {
        self.blake2.update(bytes);
        self.blake3.update(bytes);
        let file = self.file.as_mut().expect("an output is written until it is finished");
        file.write_all(bytes).map_err(io(&self.temporary))
    }

    /// BLAKE3 of what was written so far.
    pub(super) fn blake3(&self) -> [u8; 32] {
        *self.blake3.finalize().as_bytes()
    }

    /// Makes it durable under its name; gives the BLAKE2b-512 of all of it.
    pub(super) fn finish(mut self) -> Result<[u8; 64], CeremonyError> {
        let file = self.file.take().expect("an output is finished once");
        let done = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|f| f.sync_all());
        done.and_then(|()| std::fs::rename(&self.temporary, &self.path)).map_err(io(&self.path))?;
        let dir = self.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        File::open(dir).and_then(|d| d.sync_all()).map_err(io(dir))?;
        Ok(std::mem::take(&mut self.blake2).finalize().into())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.is_some() || self.temporary.exists() {
            // Best effort: what is left says by its name that it is nothing.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// BLAKE2b-512 of a whole file, read once.
pub(super) fn blake2_of(path: &Path, progress: super::Progress<'_>) -> Result<[u8; 64], CeremonyError> {
    let mut file = File::open(path).map_err(io(path))?;
    let total = file.metadata().map_err(io(path))?.len();
    let (mut hasher, mut buffer, mut done) = (Blake2b512::new(), vec![0; 1 << 20], 0);
    loop {
        let n = file.read(&mut buffer).map_err(io(path))?;
        if n == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&buffer[..n]);
        done += n as u64;
        progress("hashing", done, total);
    }
}
