#!/usr/bin/env python3
"""Writes the Poseidon2 table of the Rust crate and the JSON vectors; `--check` says whether the committed files are these.

Usage   python3 tests/poseidon2/generate.py [--check]
Needs   nothing beyond Python 3.10's standard library
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import vectors  # noqa: E402
from poseidon2 import ALPHA, WIDTH, Instance  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def limbs(value):
    return "[" + ", ".join(f"0x{value >> 64 * i & 2**64 - 1:016x}" for i in range(4)) + "]"


def table(instance):
    """The Rust source of the constants."""
    lines = [
        "//! Poseidon2 constants, width 8, over the scalar field of BLS12-381. Generated; do not edit.",
        "//!",
        "//! By      `python3 tests/poseidon2/generate.py`, which `--check`s this file too",
        "//! Form    canonical integers as four 64-bit limbs, lowest first",
        "",
        "/// The S-box exponent.",
        f"pub const ALPHA: u64 = {ALPHA};",
        "/// Rounds in which every word goes through the S-box; half of them before the partial rounds, half after.",
        f"pub const ROUNDS_FULL: usize = {instance.full};",
        "/// Rounds in which only word 0 goes through the S-box.",
        f"pub const ROUNDS_PARTIAL: usize = {instance.partial};",
        "",
        "pub(super) const DIAGONAL_MINUS_ONE: [[u64; 4]; 8] = [",
        *(f"    {limbs(d)}," for d in instance.diagonal_minus_one),
        "];",
        "",
        "pub(super) const FULL: [[[u64; 4]; 8]; ROUNDS_FULL] = [",
    ]
    for constants in instance.begin + instance.end:
        lines += ["    [", *(f"        {limbs(c)}," for c in constants), "    ],"]
    lines += ["];", "", "pub(super) const PARTIAL: [[u64; 4]; ROUNDS_PARTIAL] = ["]
    lines += [*(f"    {limbs(c)}," for c in instance.middle), "];", ""]
    return "\n".join(lines)


def files():
    """Every generated file: path and text."""
    instance = Instance()
    assert len(instance.diagonal_minus_one) == WIDTH
    yield ROOT / "crypto/src/poseidon2/constants.rs", table(instance)
    for name, value in vectors.all_vectors(instance):
        yield ROOT / "tests/vectors" / f"{name}.json", json.dumps(value, indent=1) + "\n"


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = []
    for path, text in files():
        if check:
            if not path.is_file() or path.read_text() != text:
                stale.append(str(path.relative_to(ROOT)))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        sys.exit("not what the generator writes: " + ", ".join(stale))
    print("generated files are up to date" if check else "generated files written")


if __name__ == "__main__":
    main()
