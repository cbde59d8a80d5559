//! Where the demo finds its parts: the repository, anvil, a folder of its own.

use crate::error::{Context, Failure, Result};
use std::path::{Path, PathBuf};

/// Finds anvil: `FLUENCE_ANVIL`, the repository's npm folder (the binary itself, not its wrapper), then the search path.
pub(crate) fn anvil(repo: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("FLUENCE_ANVIL").filter(|v| !v.is_empty()) {
        let path = PathBuf::from(named);
        return if path.is_file() {
            Ok(path)
        } else {
            Err(Failure::usage(format!("FLUENCE_ANVIL names {}, which is no file", path.display())))
        };
    }
    let installed = fluence_bindings::anvil::find(&repo.join("contracts"));
    let on_path =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).map(|d| d.join("anvil")).collect::<Vec<_>>());
    installed.into_iter().chain(on_path.into_iter().flatten()).find(|p| p.is_file()).ok_or_else(|| {
        Failure::failed("anvil, the local chain, is not installed")
            .help("run `npm ci` in the contracts folder, or name the binary in FLUENCE_ANVIL")
    })
}

/// The repository: where `contracts` and `tests/demo` lie, upwards from here, then from the executable.
pub(crate) fn repository() -> Result<PathBuf> {
    let from = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    from.iter()
        .flatten()
        .flat_map(|p| p.ancestors())
        .find(|d| d.join("tests/demo/expected.py").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| {
            Failure::usage("the demo's scripts were not found")
                .help("run `fluence demo` inside the repository (make demo does)")
        })
}

/// A folder made empty, but only one that the demo made before or that is new.
pub(crate) fn fresh_dir(dir: &Path) -> Result<()> {
    let mark = dir.join(".fluence-demo");
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    if occupied && !mark.exists() {
        return Err(Failure::usage(format!("{} holds something else", dir.display()))
            .help("name another folder with --out DIR"));
    }
    if occupied {
        std::fs::remove_dir_all(dir).doing(format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).doing(format!("cannot make {}", dir.display()))?;
    std::fs::write(&mark, "made by `fluence demo`, and emptied by the next\n")
        .doing(format!("cannot write {}", mark.display()))
}

/// Where proving keys are kept between runs: `FLUENCE_KEYS`, else `.cache/keys` in the repository.
pub(crate) fn keys_dir(repo: &Path) -> Result<PathBuf> {
    let dir = std::env::var_os("FLUENCE_KEYS")
        .filter(|v| !v.is_empty())
        .map_or_else(|| repo.join(".cache/keys"), PathBuf::from);
    std::fs::create_dir_all(&dir).doing(format!("cannot make {}", dir.display()))?;
    dir.canonicalize().doing(format!("cannot find {}", dir.display()))
}

/// This program's own file; where it was replaced since it started (a new build), the image that runs.
pub(crate) fn own_program() -> Result<PathBuf> {
    let path = std::env::current_exe().doing("cannot find this program's own file")?;
    let running = Path::new("/proc/self/exe");
    Ok(if !path.is_file() && running.exists() { running.to_owned() } else { path })
}
