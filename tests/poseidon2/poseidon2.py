"""Poseidon2 over the scalar field of BLS12-381, width 8, from first principles and in plain integers.

What    the published parameter generator (round numbers, Grain LFSR, internal diagonal) and the permutation itself.
Rule    nothing here is shared with the Rust code: the two meet only in the files under tests/vectors.
Source  Grassi, Khovratovich, Schofnegger, "Poseidon2", ePrint 2023/323; the authors' generator
        github.com/HorizenLabs/poseidon2 (poseidon2_rust_params.sage); Grain: ePrint 2019/458, appendix E.
"""

from fractions import Fraction
from itertools import count
from math import comb, floor, gcd, log2, log

P = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
WIDTH = 8
SECURITY_BITS = 128
BITS = P.bit_length()


def smallest_alpha():
    """The least exponent that permutes the field."""
    return next(a for a in count(3) if gcd(a, P - 1) == 1)


ALPHA = smallest_alpha()


# --- round numbers -------------------------------------------------------------------------------------------------


def ceil(x):
    return -floor(-x)


def enough(rounds_full, rounds_partial):
    """Whether the known attacks all cost at least 2^128 (statistical, interpolation, three Groebner bounds, ePrint 2023/537)."""
    t, m, rp = WIDTH, SECURITY_BITS, rounds_partial
    log_p = log2(P)
    log_alpha_2 = log(2) / log(ALPHA)
    needed = max(
        6 if m <= floor(log_p - (ALPHA - 1) / 2) * (t + 1) else 10,
        1 + ceil(log_alpha_2 * min(m, BITS)) + ceil(log(t) / log(ALPHA)) - rp,
        ceil(log_alpha_2 * min(m, log_p) - rp),
        ceil(t - 1 + log_alpha_2 * min(m / (t + 1), log_p / 2) - rp),
        ceil((t - 2 + m / (2 * log2(ALPHA)) - rp) / (t - 1)),
    )
    third = t // 3
    under = third * Fraction(rounds_full, 2) + rp + ALPHA
    over = (rounds_full - 1) * t + rp + third + under
    cost = ceil(2 * log2(comb(int(over), int(under))))
    return rounds_full >= needed and cost >= m


def round_numbers():
    """The cheapest safe pair, after the margin of 2 full and 7.5 % partial rounds."""
    best = None
    for rp in range(1, 500):
        for rf in range(4, 100, 2):
            if not enough(rf, rp):
                continue
            full, partial = rf + 2, ceil(rp * 1.075)
            key = (WIDTH * full + partial, full)
            if best is None or key < best[0]:
                best = (key, full, partial)
            break  # more full rounds only cost more
    return best[1], best[2]


# --- Grain LFSR ----------------------------------------------------------------------------------------------------


class Grain:
    """80-bit LFSR in self-shrinking mode, seeded with the instance's parameters."""

    def __init__(self, rounds_full, rounds_partial):
        fields = [(1, 2), (0, 4), (BITS, 12), (WIDTH, 12), (rounds_full, 10), (rounds_partial, 10), (2**30 - 1, 30)]
        self.state = [int(b) for value, size in fields for b in format(value, f"0{size}b")]
        assert len(self.state) == 80
        for _ in range(160):
            self._step()

    def _step(self):
        s = self.state
        bit = s[62] ^ s[51] ^ s[38] ^ s[23] ^ s[13] ^ s[0]
        self.state = s[1:] + [bit]
        return bit

    def bit(self):
        """One output bit: of each pair, the second, where the first is 1."""
        while True:
            keep, bit = self._step(), self._step()
            if keep:
                return bit

    def integer(self):
        """As many bits as the modulus has, most significant first."""
        value = 0
        for _ in range(BITS):
            value = value << 1 | self.bit()
        return value

    def below_p(self):
        """An integer below the modulus, by rejection."""
        while (value := self.integer()) >= P:
            pass
        return value


# --- polynomials modulo P, lowest coefficient first ------------------------------------------------------------------


def poly_trim(a):
    while a and a[-1] == 0:
        a.pop()
    return a


def poly_mod(a, f):
    """a mod f for monic f."""
    a = a[:]
    d = len(f) - 1
    for i in range(len(a) - 1, d - 1, -1):
        if c := a[i]:
            for j in range(d + 1):
                a[i - d + j] = (a[i - d + j] - c * f[j]) % P
    return poly_trim(a[:d])


def poly_mul(a, b, f):
    out = [0] * max(len(a) + len(b) - 1, 0)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] = (out[i + j] + x * y) % P
    return poly_mod(out, f)


def poly_pow(a, e, f):
    out = [1]
    for bit in format(e, "b"):
        out = poly_mul(out, out, f)
        if bit == "1":
            out = poly_mul(out, a, f)
    return out


def poly_compose(a, b, f):
    """a(b) mod f, by Horner."""
    out = []
    for c in reversed(a):
        out = poly_mul(out, b, f) if out else []
        out = poly_trim([((out[0] if out else 0) + c) % P] + out[1:])
    return out


def poly_gcd(a, b):
    while b:
        inv = pow(b[-1], -1, P)
        b = [c * inv % P for c in b]
        a, b = b, poly_mod(a, b)
    return a


def irreducible(f):
    """Rabin's test for a monic f of degree 8: x^(p^8) = x, and x^(p^4) - x is coprime to f."""
    x = [0, 1]
    frob = poly_pow(x, P, f)
    frob2 = poly_compose(frob, frob, f)
    frob4 = poly_compose(frob2, frob2, f)
    frob8 = poly_compose(frob4, frob4, f)
    if frob8 != x:
        return False
    difference = frob4 + [0] * (2 - len(frob4))
    difference[1] = (difference[1] - 1) % P
    return len(poly_gcd(f, poly_trim(difference))) == 1


# --- matrices ------------------------------------------------------------------------------------------------------


def mat_mul(a, b):
    return [[sum(x * y for x, y in zip(row, col)) % P for col in zip(*b)] for row in a]


def characteristic(m):
    """Characteristic polynomial by Faddeev-LeVerrier, monic, lowest coefficient first."""
    n = len(m)
    coefficients = [1]
    acc = [[0] * n for _ in range(n)]
    for k in range(1, n + 1):
        for i in range(n):
            acc[i][i] = (acc[i][i] + coefficients[-1]) % P
        acc = mat_mul(m, acc)
        coefficients.append(-pow(k, -1, P) * sum(acc[i][i] for i in range(n)) % P)
    return coefficients[::-1]


def no_invariant_subspace(m):
    """The generator's condition: the minimal polynomials of M, M^2, .., M^(2t) have full degree and are irreducible.

    A minimal polynomial of full degree is the characteristic one, and an irreducible characteristic polynomial is minimal;
    so it is enough, and necessary, that all of the characteristic polynomials are irreducible. Such a matrix has no proper
    invariant subspace, which is more than the generator's three final checks (algorithms 1 to 3) ask.
    """
    power = m
    for _ in range(2 * WIDTH):
        if not irreducible(characteristic(power)):
            return False
        power = mat_mul(m, power)
    return True


def internal_matrix(diagonal):
    """Ones everywhere but on the diagonal."""
    return [[diagonal[i] if i == j else 1 for j in range(WIDTH)] for i in range(WIDTH)]


M4 = [[5, 7, 1, 3], [4, 6, 1, 1], [1, 3, 5, 7], [1, 1, 4, 6]]


def external_matrix():
    """circ(2 M4, M4) for two blocks of four."""
    return [[M4[i % 4][j % 4] * (2 if i // 4 == j // 4 else 1) for j in range(WIDTH)] for i in range(WIDTH)]


# --- the instance ----------------------------------------------------------------------------------------------------


class Instance:
    """Round numbers, round constants and the internal diagonal, in the order in which the generator draws them."""

    def __init__(self):
        self.full, self.partial = round_numbers()
        grain = Grain(self.full, self.partial)
        half = self.full // 2
        self.begin = [[grain.below_p() for _ in range(WIDTH)] for _ in range(half)]
        self.middle = [grain.below_p() for _ in range(self.partial)]
        self.end = [[grain.below_p() for _ in range(WIDTH)] for _ in range(half)]
        self.tries = 0
        while True:
            self.tries += 1
            diagonal = [grain.integer() % P for _ in range(WIDTH)]
            if no_invariant_subspace(internal_matrix(diagonal)):
                break
        self.diagonal_minus_one = [(d - 1) % P for d in diagonal]
        self.external = external_matrix()
        self.internal = internal_matrix(diagonal)

    def permute(self, state):
        """The permutation, by its definition: whole matrices, no shortcut."""
        state = apply(self.external, state)
        for constants in self.begin:
            state = apply(self.external, [pow(x + c, ALPHA, P) for x, c in zip(state, constants)])
        for constant in self.middle:
            state = apply(self.internal, [pow(state[0] + constant, ALPHA, P)] + state[1:])
        for constants in self.end:
            state = apply(self.external, [pow(x + c, ALPHA, P) for x, c in zip(state, constants)])
        return state


def apply(matrix, state):
    return [sum(m * x for m, x in zip(row, state)) % P for row in matrix]
