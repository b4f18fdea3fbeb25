#!/usr/bin/env python3
"""Fortuna, a second time: the oracle of the runtime's generator.

Written from *Cryptography Engineering* (chapter 9) and RFC 8439 alone, with nothing but Python's SHA-256, so that a mistake in one of the two
implementations shows. It prints a run, one operation a line, with the digest of what each request gives:

    python3 runtime/oracle/fortuna.py > runtime/oracle/fortuna.txt

    start HEX                  what was gathered at the start
    add SOURCE HEX             entropy of a source, any length
    fill NANOSECONDS BYTES HEX a request at a moment of the monotonic clock, and the SHA-256 of its output
"""

import hashlib
import random
import struct
import sys

POOLS = 32
MIN_POOL_SIZE = 64
RESEED_INTERVAL = 100_000_000
MAX_EVENT = 32
MAX_REQUEST = 1 << 20
SOURCES = 7


def sha_d(message):
    """SHA_d-256 of section 5.4.2."""
    return hashlib.sha256(hashlib.sha256(bytes(64) + message).digest()).digest()


def chacha20_block(key, counter):
    """The block function of RFC 8439, 2.3, with a counter of 64 bits and a nonce of zeroes (Bernstein's original layout)."""
    mask = 0xFFFFFFFF
    initial = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *struct.unpack("<8I", key), counter & mask, counter >> 32, 0, 0]
    x = list(initial)

    def quarter(a, b, c, d):
        xa, xb, xc, xd = x[a], x[b], x[c], x[d]
        xa = (xa + xb) & mask
        xd ^= xa
        xd = (xd << 16 | xd >> 16) & mask
        xc = (xc + xd) & mask
        xb ^= xc
        xb = (xb << 12 | xb >> 20) & mask
        xa = (xa + xb) & mask
        xd ^= xa
        xd = (xd << 8 | xd >> 24) & mask
        xc = (xc + xd) & mask
        xb ^= xc
        xb = (xb << 7 | xb >> 25) & mask
        x[a], x[b], x[c], x[d] = xa, xb, xc, xd

    for _ in range(10):
        quarter(0, 4, 8, 12)
        quarter(1, 5, 9, 13)
        quarter(2, 6, 10, 14)
        quarter(3, 7, 11, 15)
        quarter(0, 5, 10, 15)
        quarter(1, 6, 11, 12)
        quarter(2, 7, 8, 13)
        quarter(3, 4, 9, 14)
    return struct.pack("<16I", *((a + b) & mask for a, b in zip(x, initial)))


def keystream(key, length):
    blocks = (chacha20_block(key, counter) for counter in range(-(-length // 64)))
    return b"".join(blocks)[:length]


class Fortuna:
    def __init__(self, seed):
        self.key = sha_d(bytes(32) + seed)
        self.pools = [b""] * POOLS
        self.next_pool = [0] * SOURCES
        self.reseeds = 0
        self.last_reseed = None

    def add(self, source, data):
        for at in range(0, len(data), MAX_EVENT):
            event = data[at : at + MAX_EVENT]
            pool = self.next_pool[source]
            self.next_pool[source] = (pool + 1) % POOLS
            self.pools[pool] += bytes([source, len(event)]) + event

    def fill(self, now, length):
        due = self.last_reseed is None or now - self.last_reseed >= RESEED_INTERVAL
        if due and len(self.pools[0]) >= MIN_POOL_SIZE:
            self.reseeds += 1
            seed = b""
            for pool in range(POOLS):
                if self.reseeds % (1 << pool) == 0:
                    seed += sha_d(self.pools[pool])
                    self.pools[pool] = b""
            self.key = sha_d(self.key + seed)
            self.last_reseed = now
        output = b""
        while len(output) < length:
            part = min(length - len(output), MAX_REQUEST)
            stream = keystream(self.key, part + 32)
            self.key = stream[:32]
            output += stream[32:]
        return output


def main():
    # RFC 8439, A.1, test vector 1: the oracle itself is right.
    assert chacha20_block(bytes(32), 0).hex().startswith("76b8e0ada0f13d90405d6ae55386bd28")
    dice = random.Random(9)
    seed = dice.randbytes(400)
    fortuna = Fortuna(seed)
    print("start", seed.hex())

    def fill(now, length):
        print("fill", now, length, hashlib.sha256(fortuna.fill(now, length)).hexdigest())

    def add(source, length):
        data = dice.randbytes(length)
        fortuna.add(source, data)
        print("add", source, data.hex())

    fill(0, 32)
    fill(1, 1)
    # More than may be drawn under one key.
    fill(2, MAX_REQUEST + 100)
    now = 2
    for _ in range(400):
        for _ in range(dice.randrange(12)):
            add(dice.randrange(SOURCES), dice.choice([1, 8, 8, 32, 32, 33, 100]))
        now += dice.choice([0, 1, 1_000_000, 40_000_000, 99_999_999, 100_000_000, 3_000_000_000])
        fill(now, dice.choice([1, 4, 8, 32, 32, 63, 64, 65, 224, 225, 256, 1000]))
    print(f"{fortuna.reseeds} reseeds", file=sys.stderr)


main()
