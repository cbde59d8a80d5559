"""Keccak-256 as Ethereum uses it (padding 0x01, not SHA-3's 0x06), which Python's hashlib lacks.

Source  Bertoni, Daemen, Peeters, Van Assche, "The Keccak reference", 2011
"""

MASK = 2**64 - 1
RATE = 136


def _constants():
    """Round constants and rotation offsets, from their definitions."""
    bits, register = [], 1
    for _ in range(255):
        bits.append(register & 1)
        register = register << 1 ^ (0x171 if register & 0x80 else 0)
    rounds = [sum(bits[(7 * i + j) % 255] << 2**j - 1 for j in range(7)) for i in range(24)]
    offsets, x, y = [[0] * 5 for _ in range(5)], 1, 0
    for t in range(24):
        offsets[x][y] = (t + 1) * (t + 2) // 2 % 64
        x, y = y, (2 * x + 3 * y) % 5
    return rounds, offsets


ROUNDS, OFFSETS = _constants()


def rotate(word, by):
    return (word << by | word >> 64 - by) & MASK


def permute(a):
    for constant in ROUNDS:
        column = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        for x in range(5):
            parity = column[x - 1] ^ rotate(column[(x + 1) % 5], 1)
            a[x] = [lane ^ parity for lane in a[x]]
        b = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                b[y][(2 * x + 3 * y) % 5] = rotate(a[x][y], OFFSETS[x][y])
        a = [[b[x][y] ^ ~b[(x + 1) % 5][y] & b[(x + 2) % 5][y] for y in range(5)] for x in range(5)]
        a[0][0] ^= constant
    return a


def keccak256(data):
    padded = bytearray(data) + b"\x01" + bytes(RATE - 1 - len(data) % RATE)
    padded[-1] |= 0x80
    a = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), RATE):
        for i in range(RATE // 8):
            a[i % 5][i // 5] ^= int.from_bytes(padded[start + 8 * i : start + 8 * i + 8], "little")
        a = permute(a)
    return b"".join(a[i % 5][i // 5].to_bytes(8, "little") for i in range(4))


assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
