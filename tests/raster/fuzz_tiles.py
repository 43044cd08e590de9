"""Feeds damaged tiles to the checks and the decoder, in a process of its own with little memory: `SEED COUNT FORMAT`.

Prints how many were refused and how many passed; anything but our tile error ends it with a traceback, and a crash of
GDAL ends it with a signal.
"""

from __future__ import annotations

import random
import resource
import sys
import warnings

from mosaic_async.build.body_checks import check_answer
from mosaic_async.build.budget import peak_rss
from mosaic_async.errors import TileError
from mosaic_async.geo.cover import Tile
from mosaic_async.http.request import Answer
from mosaic_async.raster.tile import decode, learn
from tests.fake_tiler import FakeTiler, Pattern

PLACE = (7, 64, 49)
MEMORY = 3 * 2**30
"""Bytes of address space; GDAL with its libraries maps more than one at rest."""
MAX_RSS = 600 * 2**20


def mutated(body: bytes, chance: random.Random) -> bytes:
    """Flip, cut, repeat, or overwrite with what hurts: near the begin, where the headers are, more often."""
    data = bytearray(body)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        where = chance.randrange(len(data)) if chance.random() < 0.4 else chance.randrange(min(len(data), 600))
        match chance.randrange(6):
            case 0:
                data[where] ^= 1 << chance.randrange(8)
            case 1:
                data[where : where + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")
                )
            case 2:
                data[where : where + 2] = chance.randrange(65536).to_bytes(2, "little")
            case 3:
                del data[where + 1 :]
            case 4:
                size = chance.randrange(1, 200)
                data[where:where] = data[where : where + size]
            case 5:
                del data[where : where + chance.randrange(1, 200)]
        if not data:
            return b"\0"
    return bytes(data)


def main(seed: int, count: int, ext: str) -> None:
    tiler = FakeTiler(pattern=Pattern(masked=ext not in ("jpg", "jp2"), smooth=ext in ("jpg", "webp")), ext=ext)
    body = tiler.body(PLACE)
    tile_format = learn(body)
    decode(body, tile_format)
    check_answer(Answer(200, body), tile := Tile(64, 49, 7), tile_format)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chance = random.Random(seed)
    passed = 0
    for _ in range(count):
        bad = mutated(body, chance)
        try:
            if chance.random() < 0.7:  # what the checks refuse is decoded as well now and then: it must hold by itself
                check_answer(Answer(200, bad), tile, tile_format)
            pixels, mask = decode(bad, tile_format)
        except TileError:
            continue
        passed += 1
        assert pixels.shape == (3, 256, 256)
        assert mask is None or mask.shape == (256, 256)
    rss = peak_rss()
    assert rss < MAX_RSS, rss
    sys.stdout.write(f"{ext}: {count - passed} of {count} refused, {rss / 2**20:.0f} MiB at most\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
