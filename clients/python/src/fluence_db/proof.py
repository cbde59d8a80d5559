"""Proof files: read under limits, and checked against a key that did not come with the proof.

Rule    the key inside a proof file is for other tools. Yours comes from a key file (fluence-vkey/1) that you trust.
Rule    what the context determines is computed again, so that you may believe the context of a file that is accepted. The height is the
        prover's word: compare `root` with the one that a certificate names.
Uses    py-arkworks-bls12381 (curves), blake3 and pycryptodome (hashes): the extra `verify`.
Source  docs/protocol/proof-file.md, statements.md
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Union

from . import poseidon2
from .errors import ProofRefused

PROOF_FILE_BYTES_MAX = 1 << 20
KEY_FILE_BYTES_MAX = 16 << 10
_COUNT_BITS = 40
_PROJECTIONS_MAX = 1 << 12
_LANES_MAX = 256
_RANGE_SUM_TAG = 2


@dataclass(frozen=True)
class RangeSum:
    """A number is the sum of one lane between two positions of every live segment. On sealed lanes the number is masked."""

    db: str
    projection: int
    lane: int
    #: Of every live segment, the first position and the one after the last.
    ranges: tuple[tuple[int, int], ...]
    #: As the prover says; the proof does not bind it.
    height: int
    #: The database's root, to be compared with a certificate's.
    root: int
    sum: int


@dataclass(frozen=True)
class Storage:
    """A node had the cells that the seed picks from everything under a root."""

    chain_id: int
    contract: str
    node: str
    epoch: int
    beacon: str
    proof_index: int
    root: int
    total_cells: int


@dataclass(frozen=True)
class Proven:
    """A proof file that was accepted."""

    circuit: str
    fingerprint: str
    #: The key was made on one machine: whoever made it can forge.
    insecure_dev_key: bool
    statement: Union[RangeSum, Storage]


_Source = Union[str, "PathLike[str]", bytes]


def verify_proof_file(proof: _Source, key: _Source) -> Proven:
    """What a proof file shows, under the key of a key file that you trust. Both are paths, or the bytes themselves.

    Raises ProofRefused where anything about it does not hold.
    """
    file = _json(_bytes(proof, PROOF_FILE_BYTES_MAX, "proof file"))
    trusted = _json(_bytes(key, KEY_FILE_BYTES_MAX, "key file"))
    names = "format curve protocol circuit fingerprint insecure_dev_key public_inputs context proof verification_key"
    _fields(file, names.split(), "the file")
    for name, want in (("format", "fluence-proof/1"), ("curve", "bls12381"), ("protocol", "groth16")):
        if file[name] != want:
            raise ProofRefused(f"field {name} is not {want!r}")
    shape = _shape(file["circuit"])
    if not isinstance(file["public_inputs"], list) or len(file["public_inputs"]) != 3:
        raise ProofRefused("a statement has 3 public inputs")
    inputs = [int.from_bytes(_hex(word, 32, "a public input")) for word in file["public_inputs"]]
    if any(value >= poseidon2.R for value in inputs):
        raise ProofRefused("a public input is not below the field's order")
    statement = _statement(shape, file["context"], inputs)
    # What the file carries is read as it is by other tools, and must be what it says. It is not trusted by that.
    _key(file["verification_key"], file["fingerprint"])
    bare = ["format", "circuit", "fingerprint", "insecure_dev_key", "key"]
    _fields(trusted, bare + ["transcript"] if "transcript" in trusted else bare, "the key file")
    if trusted["format"] != "fluence-vkey/1":
        raise ProofRefused("the key file's format is not 'fluence-vkey/1'")
    if trusted["insecure_dev_key"] is not ("transcript" not in trusted or trusted["transcript"] is None):
        raise ProofRefused("a key has a transcript, or is a development key")
    if trusted["circuit"] != file["circuit"] or _hex(trusted["fingerprint"], 32, "a fingerprint") != _hex(
        file["fingerprint"], 32, "a fingerprint"
    ):
        raise ProofRefused("the proof is under another key, or of another circuit, than the key file's")
    points = _key(trusted["key"], trusted["fingerprint"])
    if file["insecure_dev_key"] is not trusted["insecure_dev_key"]:
        raise ProofRefused("the file says of its key, whether it is a development key, what the key file does not")
    _pairing(points, inputs, _hex(file["proof"], 192, "a proof"))
    return Proven(file["circuit"], file["fingerprint"], trusted["insecure_dev_key"], statement)


# --- form ----------------------------------------------------------------------------------------------------------


def _bytes(source: _Source, limit: int, what: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    else:
        with Path(source).open("rb") as file:
            data = file.read(limit + 1)
    if len(data) > limit:
        raise ProofRefused(f"a {what} has at most {limit} bytes")
    return data


def _json(data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ProofRefused("a field stands twice")
        return found

    try:
        value = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ProofRefused(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProofRefused("not a JSON object")
    return value


def _fields(value: Any, names: list[str], what: str) -> None:
    if not isinstance(value, dict) or set(value) != set(names):
        raise ProofRefused(f"{what} has other fields than {', '.join(names)}")


def _hex(text: Any, size: int | None, what: str) -> bytes:
    digits = text.removeprefix("0x") if isinstance(text, str) else ""
    if not re.fullmatch(r"([0-9a-fA-F]{2})+", digits) or size not in (None, len(digits) // 2):
        raise ProofRefused(f"{what} is not {'' if size is None else f'{size} bytes of '}hexadecimal digits")
    return bytes.fromhex(digits)


def _number(value: Any, bits: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise ProofRefused(f"{what} is no number below 2^{bits}")
    return value


def _shape(circuit: Any) -> dict[str, int]:
    """The numbers in a circuit's name, which has one spelling."""
    for form in (r"storage/v2/k(N)-h(N)-d(N)-t(N)", r"range_sum/v1/s(N)-t(N)"):
        pattern = form.replace("(N)", "(0|[1-9][0-9]{0,3})")
        if isinstance(circuit, str) and (found := re.fullmatch(pattern, circuit, re.ASCII)):
            numbers = [int(number) for number in found.groups()]
            if max(numbers) <= 1024:
                return dict(zip("khdt" if len(numbers) == 4 else "st", numbers))
    raise ProofRefused("no circuit is called so")


# --- statement -----------------------------------------------------------------------------------------------------


def _statement(shape: dict[str, int], context: Any, inputs: list[int]) -> Union[RangeSum, Storage]:
    kind = context.get("statement") if isinstance(context, dict) else None
    if kind == "range_sum" and "s" in shape:
        return _range_sum(shape, context, inputs)
    if kind == "storage" and "k" in shape:
        return _storage(shape, context, inputs)
    raise ProofRefused("the context is of another statement than the circuit")


def _range_sum(shape: dict[str, int], context: Any, inputs: list[int]) -> RangeSum:
    _fields(context, ["statement", "height", "db", "query"], "the context")
    query = context["query"]
    _fields(query, ["db", "projection", "lane", "ranges"], "the query")
    db = _hex(query["db"], 16, "a database's id")
    if db != _hex(context["db"], 16, "a database's id"):
        raise ProofRefused("the query is for another database")
    projection, lane = _number(query["projection"], 32, "projection"), _number(query["lane"], 16, "lane")
    if projection >= _PROJECTIONS_MAX or lane >= _LANES_MAX:
        raise ProofRefused("no such projection or lane")
    if not isinstance(query["ranges"], list) or len(query["ranges"]) > shape["s"]:
        raise ProofRefused("more ranges than the shape has segments")
    ranges = []
    for one in query["ranges"]:
        _fields(one, ["lo", "hi"], "a range")
        low, high = _number(one["lo"], _COUNT_BITS, "lo"), _number(one["hi"], _COUNT_BITS, "hi")
        if low > high:
            raise ProofRefused("a range ends before it begins")
        ranges.append((low, high))
    words = [int.from_bytes(db), projection, lane, *(low | high << 40 for low, high in ranges)]
    if poseidon2.digest(_RANGE_SUM_TAG, words) != inputs[1]:
        raise ProofRefused("the query does not make the second input")
    height = _number(context["height"], 64, "height")
    return RangeSum("0x" + db.hex(), projection, lane, tuple(ranges), height, inputs[0], inputs[2])


def _storage(shape: dict[str, int], context: Any, inputs: list[int]) -> Storage:
    from Crypto.Hash import keccak

    _fields(context, ["statement", "seed"], "the context")
    seed = context["seed"]
    _fields(seed, ["chain_id", "contract", "node", "epoch", "beacon", "shape", "proof_index"], "the seed")
    if seed["shape"] != shape["k"] << 48 | shape["h"] << 32 | shape["d"] << 16 | shape["t"]:
        raise ProofRefused("the seed names another shape")
    chain_id, epoch = _number(seed["chain_id"], 64, "chain_id"), _number(seed["epoch"], 64, "epoch")
    proof_index = _number(seed["proof_index"], 32, "proof_index")
    contract, node = _hex(seed["contract"], 20, "a contract"), _hex(seed["node"], 32, "a node's id")
    beacon = _hex(seed["beacon"], 32, "a beacon")
    words = [
        chain_id.to_bytes(32), contract.rjust(32, b"\0"), node, epoch.to_bytes(32),
        beacon, seed["shape"].to_bytes(32), proof_index.to_bytes(32),
    ]  # fmt: skip
    hashed = keccak.new(digest_bits=256, data=b"".join(words)).digest()
    if int.from_bytes(hashed) & ((1 << 253) - 1) != inputs[2]:
        raise ProofRefused("the seed's parts do not make the third input")
    if not 0 < inputs[1] < 1 << _COUNT_BITS:
        raise ProofRefused("the second input is no count of cells")
    said = ("0x" + contract.hex(), "0x" + node.hex(), epoch, "0x" + beacon.hex())
    return Storage(chain_id, *said, proof_index, inputs[0], inputs[1])


# --- curve ---------------------------------------------------------------------------------------------------------


def _point(data: bytes, what: str) -> Any:
    """A point of its group: on the curve, in the subgroup, not infinity, in its one encoding."""
    from py_arkworks_bls12381 import G1Point, G2Point

    group = G1Point if len(data) == 48 else G2Point
    try:
        point = group.from_compressed_bytes(data)
    except ValueError as error:
        raise ProofRefused(f"{what} is no point: {error}") from error
    if not point.is_in_subgroup() or point == group.identity() or bytes(point.to_compressed_bytes()) != data:
        raise ProofRefused(f"{what} is no point of the group in its one encoding")
    return point


def _key(text: Any, fingerprint: Any) -> list[Any]:
    """alpha, beta, gamma, delta, then IC: one more than there are inputs."""
    from blake3 import blake3

    data = _hex(text, 48 + 3 * 96 + 4 * 48, "a key")
    if blake3(data).digest() != _hex(fingerprint, 32, "a fingerprint"):
        raise ProofRefused("the fingerprint is another key's")
    cuts = [0, 48, 144, 240, 336, 384, 432, 480, 528]
    return [_point(data[a:b], "a part of the key") for a, b in zip(cuts, cuts[1:])]


def _pairing(key: list[Any], inputs: list[int], proof: bytes) -> None:
    """e(A, B) = e(alpha, beta) e(IC_0 + sum x_i IC_i, gamma) e(C, delta)."""
    from py_arkworks_bls12381 import GT, Scalar

    alpha, beta, gamma, delta, total, *rest = key
    a, b, c = _point(proof[:48], "A"), _point(proof[48:144], "B"), _point(proof[144:], "C")
    for value, point in zip(inputs, rest, strict=True):
        total = total + point * Scalar.from_be_bytes(value.to_bytes(32))
    if not GT.pairing_check([-a, alpha, total, c], [b, beta, gamma, delta]):
        raise ProofRefused("the proof does not hold")
