"""The JSON vectors: arrays of objects; scalars and 64-bit randomness as 32-byte hex, counts as numbers."""

from hashlib import sha256

from poseidon2 import P
from trees import Hash, cells_of, multi_siblings, path, storage_seed


def h(value):
    return f"0x{value:064x}"


def b(data):
    return "0x" + data.hex()


def random(label):
    """32 bytes that follow from a label."""
    return sha256(label.encode()).digest()


def scalar(label):
    return int.from_bytes(random(label), "big") % P


def poseidon2(instance):
    inputs = [[0] * 8, list(range(8)), [P - 1] * 8, [1] + [0] * 7, [0] * 7 + [P - 1]]
    inputs += [[scalar(f"poseidon2 {i} {j}") for j in range(8)] for i in range(8)]
    for x in inputs:
        y = instance.permute(x)
        yield {
            "input": [h(v) for v in x],
            "output": [h(v) for v in y],
            "compress": [h((u + v) % P) for u, v in zip(x, y)],
        }


def tree(hash_):
    for count in [1, 2, 7, 8, 9, 63, 64, 65, 130, 513]:
        levels = hash_.segment_levels(count)
        header_hash = random(f"header {count}")
        root = levels[-1][0]
        index = count * 2 // 3
        groups = path(levels, index, 8)
        siblings = []
        at = index
        for group in groups:
            siblings.append([h(v) for i, v in enumerate(group) if i != at % 8])
            at //= 8
        indices = sorted({0, index, count - 1, count // 2})
        yield {
            "cells": count,
            "root": h(root),
            "headerHash": b(header_hash),
            "segmentRoot": h(hash_.segment_root(root, count, header_hash)),
            "index": index,
            "cell": [h(v) for v in cells_of(count)[index]],
            "path": [v for level in siblings for v in level],
            "indices": indices,
            "siblings": [h(v) for v in multi_siblings(levels, count, indices)],
        }


def sum_tree(hash_):
    for count in [0, 1, 2, 4, 5, 16, 17, 70]:
        leaves = [(scalar(f"leaf {count} {i}"), 1 + (i * i * 37 + count) % 1000) for i in range(count)]
        if count == 70:
            # Collected slots, a whole subtree of them among others.
            for i in [3, *range(16, 32), 68]:
                leaves[i] = (0, 0)
        levels = hash_.sum_levels(leaves)
        root = levels[-1][0] if leaves else (0, 0)
        vector = {
            "digests": [h(d) for d, _ in leaves],
            "weights": [w for _, w in leaves],
            "root": h(root[0]),
            "total": root[1],
        }
        if leaves:
            position = root[1] * 2 // 3
            slot, left = 0, 0
            while left + leaves[slot][1] <= position:
                left += leaves[slot][1]
                slot += 1
            groups = [g + [(0, 0)] * (4 - len(g)) for g in path(levels, slot, 4)]
            vector |= {
                "position": position,
                "slot": slot,
                "offset": position - left,
                "pathDigests": [h(d) for g in groups for d, _ in g],
                "pathWeights": [w for g in groups for _, w in g],
            }
        else:
            vector |= {"position": 0, "slot": 0, "offset": 0, "pathDigests": [], "pathWeights": []}
        yield vector


def seed(hash_):
    shapes = [(16, 4, 6, 7), (16, 1, 3, 6), (2, 1, 1, 2)]
    for i, (samples, holdings, stored, levels) in enumerate(shapes):
        parts = {
            "chain_id": [1, 31337, 2**63][i],
            "contract": random(f"contract {i}")[:20],
            "node": random(f"node {i}"),
            "epoch": [0, 42, 2**64 - 1][i],
            "beacon": random(f"beacon {i}"),
            "shape": samples << 48 | holdings << 32 | stored << 16 | levels,
            "proof_index": [0, 1, 2**32 - 1][i],
        }
        value = storage_seed(**parts)
        challenges = [hash_.challenge(value, k) for k in range(4)]
        yield {
            "chainId": h(parts["chain_id"]),
            "contract": b(parts["contract"]),
            "node": b(parts["node"]),
            "epoch": h(parts["epoch"]),
            "beacon": b(parts["beacon"]),
            "shape": h(parts["shape"]),
            "proofIndex": parts["proof_index"],
            "seed": h(value),
            "a": [h(a) for a, _ in challenges],
            "b": [h(b_) for _, b_ in challenges],
        }


def roots(hash_):
    for i, (projections, live) in enumerate([({0: 0}, [0]), ({0: 3, 1: 7, 9: 8}, [1, 9]), ({4095: 16}, [4095])]):
        entries = {
            p: {
                "projection": p,
                "table": p + 100,
                "version": p * 3 + 1,
                "schema": random(f"schema {p}"),
                "live": [scalar(f"live {p} {j}") for j in range(n)],
            }
            for p, n in projections.items()
        }
        levels = hash_.catalogue_levels({p: hash_.catalogue_leaf(e) for p, e in entries.items()})
        opened = entries[live[-1]]
        at, siblings = opened["projection"], []
        for group in path(levels, at, 8):
            siblings += [h(v) for j, v in enumerate(group) if j != at % 8]
            at //= 8
        db = random(f"db {i}")[:16]
        stored_root, stored_cells, aux = scalar(f"stored {i}"), 10**i * 7, scalar(f"aux {i}")
        database = hash_.database(int.from_bytes(db, "big"), stored_root, stored_cells, levels[-1][0], aux)
        lane = i + 2
        ranges = [(j, j * 1000 + 5) for j in range(len(opened["live"]))]
        query = [int.from_bytes(db, "big"), opened["projection"], lane] + [lo | hi << 40 for lo, hi in ranges]
        yield {
            "db": b(db),
            "storedRoot": h(stored_root),
            "storedCells": stored_cells,
            "auxRoot": h(aux),
            "entries": [
                {**e, "schema": b(e["schema"]), "live": [h(root) for root in e["live"]]} for e in entries.values()
            ],
            "catalogueRoot": h(levels[-1][0]),
            "dbRoot": h(database),
            "projection": opened["projection"],
            "liveDigest": h(hash_.digest(1, opened["live"])),
            "leaf": h(levels[0][opened["projection"]]),
            "path": siblings,
            "lane": lane,
            "lo": [lo for lo, _ in ranges],
            "hi": [hi for _, hi in ranges],
            "queryDigest": h(hash_.digest(2, query)),
            "databases": i + 1,
            "holdingsRoot": h(hash_.holdings(i + 1, stored_root, stored_cells)),
        }


def all_vectors(instance):
    hash_ = Hash(instance)
    yield "poseidon2", list(poseidon2(instance))
    yield "tree", list(tree(hash_))
    yield "sum_tree", list(sum_tree(hash_))
    yield "seed", list(seed(hash_))
    yield "roots", list(roots(hash_))
