#!/usr/bin/env python3
"""Fetches the .slt files inside the published crate datafusion-sqllogictest, pinned by version and checksum, and prints their folder.

How     `cargo info` has the crate fetched into cargo's own cache, as for a build, without building it or what it depends on; it is unpacked
        into $FLUENCE_CACHE/slt once it has the checksum below. A second run finds it there and asks nobody.
Why     the files are others' work under their own licence and several megabytes: they are read where they are, never copied into here.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

CRATE, VERSION = "datafusion-sqllogictest", "55.2.0"
SHA256 = "b270cea4d8c2b2c42773e60164204386fb97d7936736e5f126ac751b86d7dabe"
CACHE = pathlib.Path(os.environ.get("FLUENCE_CACHE") or pathlib.Path.home() / ".cache/fluence") / "slt"


def fetched():
    """The crate's archive in cargo's cache; fetched where it is not there."""
    cargo = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    for attempt in range(2):
        found = sorted(cargo.glob(f"registry/cache/*/{CRATE}-{VERSION}.crate"))
        if found:
            return found[0]
        if attempt == 0:
            print(f"fetching {CRATE} {VERSION}", file=sys.stderr)
            # Outside of any workspace: it says something of the crate itself.
            subprocess.run(["cargo", "info", "--quiet", f"{CRATE}@{VERSION}"], check=True, stdout=subprocess.DEVNULL, cwd=tempfile.gettempdir())
    raise SystemExit(f"{CRATE} {VERSION} is not in cargo's cache after it was fetched")


def main():
    place = CACHE / f"{CRATE}-{VERSION}"
    if not place.is_dir():
        archive = fetched()
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256:
            raise SystemExit(f"{archive.name}: its SHA-256 is {digest}, not {SHA256}")
        CACHE.mkdir(parents=True, exist_ok=True)
        half = pathlib.Path(tempfile.mkdtemp(dir=CACHE, prefix="half-"))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(half, filter="data")
            (half / place.name).rename(place)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    print(place / "test_files")


if __name__ == "__main__":
    main()
