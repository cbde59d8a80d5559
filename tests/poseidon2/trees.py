"""The trees, roots and challenges of docs/protocol/tree.md, written from that page and sharing nothing with the Rust code."""

from keccak import keccak256
from poseidon2 import P

NODE, CELL, SUM, SEGMENT, DATABASE, DIGEST, CATALOGUE, HOLDINGS = range(8)
LIVE, RANGE_SUM, CHALLENGE, AUX = 1, 2, 3, 4
VERSION = 1


class Hash:
    """One compression per kind of node; counts nothing, remembers nothing."""

    def __init__(self, instance):
        self.instance = instance

    def compress(self, kind, x):
        assert len(x) == 8
        return (self.instance.permute(list(x))[kind] + x[kind]) % P

    def digest(self, tag, xs):
        acc = tag << 64 | len(xs)
        for start in range(0, max(len(xs), 1), 7):
            chunk = list(xs[start : start + 7])
            acc = self.compress(DIGEST, [acc] + chunk + [0] * (7 - len(chunk)))
        return acc

    # --- segment tree ---

    def segment_levels(self, cells):
        """All levels with every padded place filled in, so nothing depends on how emptiness is represented."""
        depth = 0
        while 8**depth < cells:
            depth += 1
        level = [self.compress(CELL, c) for c in cells_of(cells)]
        empty = self.compress(CELL, [0] * 8)
        level += [empty] * (8**depth - len(level))
        levels = [level]
        memo = {}
        for _ in range(depth):
            below = levels[-1]
            groups = [tuple(below[i : i + 8]) for i in range(0, len(below), 8)]
            levels.append([memo[g] if g in memo else memo.setdefault(g, self.compress(NODE, g)) for g in groups])
        return levels

    def segment_root(self, tree_root, cells, header_hash):
        return self.compress(SEGMENT, [tree_root, cells, *halves(header_hash), VERSION, 0, 0, 0])

    # --- sum tree ---

    def sum_levels(self, leaves):
        levels = [list(leaves)]
        while len(levels[-1]) > 1:
            below = levels[-1] + [(0, 0)] * (-len(levels[-1]) % 4)
            levels.append([self.sum_node(below[i : i + 4]) for i in range(0, len(below), 4)])
        return levels

    def sum_node(self, children):
        if all(c == (0, 0) for c in children):
            return (0, 0)
        return (self.compress(SUM, [x for c in children for x in c]), sum(w for _, w in children))

    # --- above ---

    def database(self, db, stored_root, stored_cells, catalogue_root, aux_root):
        return self.compress(DATABASE, [VERSION, db, stored_root, stored_cells, catalogue_root, aux_root, 0, 0])

    def holdings(self, databases, sum_root, total):
        return self.compress(HOLDINGS, [VERSION, databases, sum_root, total, 0, 0, 0, 0])

    def catalogue_leaf(self, entry):
        live = self.digest(LIVE, entry["live"])
        count = len(entry["live"])
        return self.compress(
            CATALOGUE,
            [entry["projection"], entry["version"], *halves(entry["schema"]), count, live, entry["table"], 0],
        )

    def catalogue_levels(self, leaves):
        """`leaves`: value by index; four levels, all 4,096 places."""
        level = [leaves.get(i, 0) for i in range(8**4)]
        levels, memo = [level], {}
        for _ in range(4):
            below = levels[-1]
            groups = [tuple(below[i : i + 8]) for i in range(0, len(below), 8)]
            levels.append([memo[g] if g in memo else memo.setdefault(g, self.compress(CATALOGUE, g)) for g in groups])
        return levels

    def challenge(self, seed, k):
        """Samples 2 j and 2 j + 1 share a hash: one word for the first, two for the second."""
        h = self.digest(CHALLENGE, [seed, k // 2])
        first, a, b = (h >> 64 * i & 2**64 - 1 for i in range(3))
        return (a, b) if k % 2 else (first, 0)


def cells_of(count):
    """The cells of every vector: scalar j of cell i is (2^64 + 8 i + j + 1)^5."""
    return [[pow(2**64 + 8 * i + j + 1, 5, P) for j in range(8)] for i in range(count)]


def halves(hash32):
    return int.from_bytes(hash32[:16], "big"), int.from_bytes(hash32[16:], "big")


def multi_siblings(levels, count, indices):
    """Digests that a verifier of `indices` cannot compute: bottom up, left to right."""
    siblings, known, present = [], set(indices), count
    for level in levels[:-1]:
        parents = {i // 8 for i in known}
        wanted = (i for p in sorted(parents) for i in range(8 * p, 8 * p + 8))
        siblings += [level[i] for i in wanted if i not in known and i < present]
        known, present = parents, -(-present // 8)
    return siblings


def path(levels, index, arity):
    """Children of each parent on the way up."""
    out = []
    for level in levels[:-1]:
        index //= arity
        children = level[index * arity : index * arity + arity]
        out.append(children)
    return out


def storage_seed(chain_id, contract, node, epoch, beacon, shape, proof_index):
    word = lambda n: n.to_bytes(32, "big")
    data = word(chain_id) + bytes(12) + contract + node + word(epoch) + beacon + word(shape) + word(proof_index)
    return int.from_bytes(keccak256(data), "big") & 2**253 - 1
