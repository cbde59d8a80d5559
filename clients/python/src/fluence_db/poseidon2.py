"""Poseidon2 over the scalar field of BLS12-381, width 8, as far as the digest of a query needs it.

Source  docs/poseidon2.md, docs/protocol/tree.md; the constants are written by tests/poseidon2/generate.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

R = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
_M4 = ((5, 7, 1, 3), (4, 6, 1, 1), (1, 3, 5, 7), (1, 1, 4, 6))
#: The output word of a digest.
_DIGEST = 5


@cache
def _constants() -> tuple[list[list[int]], list[int], list[int]]:
    """Of the full rounds, of the partial ones, and the internal matrix's diagonal less one."""
    found: dict[str, Any] = json.loads(files(__package__ or "fluence_db").joinpath("poseidon2.json").read_text())
    full = [[int(constant, 16) for constant in round_] for round_ in found["full"]]
    return full, [int(c, 16) for c in found["partial"]], [int(c, 16) for c in found["diagonal_minus_one"]]


def _external(x: Sequence[int]) -> list[int]:
    blocks = [[sum(m * v for m, v in zip(row, x[at : at + 4])) for row in _M4] for at in (0, 4)]
    sums = [a + b for a, b in zip(*blocks)]
    return [(own + both) % R for block in blocks for own, both in zip(block, sums)]


def _permute(x: Sequence[int]) -> list[int]:
    full, partial, diagonal = _constants()
    state, half = _external(x), len(full) // 2
    for round_ in full[:half]:
        state = _external([pow(v + c, 5, R) for v, c in zip(state, round_)])
    for constant in partial:
        state[0] = pow(state[0] + constant, 5, R)
        total = sum(state)
        state = [(total + v * d) % R for v, d in zip(state, diagonal)]
    for round_ in full[half:]:
        state = _external([pow(v + c, 5, R) for v, c in zip(state, round_)])
    return state


def digest(tag: int, scalars: Sequence[int]) -> int:
    """The digest of a list of scalars, each below R."""
    acc = tag << 64 | len(scalars)
    for start in range(0, max(len(scalars), 1), 7):
        chunk = list(scalars[start : start + 7])
        block = [acc, *chunk, *[0] * (7 - len(chunk))]
        acc = (_permute(block)[_DIGEST] + block[_DIGEST]) % R
    return acc
