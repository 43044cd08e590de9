"""PNG of every kind, written by hand, and what their pixels are according to the specification."""

from __future__ import annotations

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6


def png(samples, *, kind, depth=8, transparent=None, palette=None, interlaced=False):
    """Encode samples, (height, width) or (height, width, bands), as they are.

    Args:
        samples: unsigned integers of `depth` bits.
        kind: of colours.
        depth: bits per sample.
        transparent: the grey value or the three colours that are transparent; with a palette, opacities by index.
        palette: (colours, 3).
        interlaced: whether rows come in the seven passes of Adam7.
    """
    height, width = samples.shape[:2]
    chunks = [(b"IHDR", struct.pack(">LLBBBBB", width, height, depth, kind, 0, 0, int(interlaced)))]
    if palette is not None:
        chunks.append((b"PLTE", np.asarray(palette, np.uint8).tobytes()))
    if transparent is not None:
        wide = np.asarray(transparent).astype(np.uint8 if kind == PALETTE else ">u2")
        chunks.append((b"tRNS", wide.tobytes()))
    passes = _passes(samples) if interlaced else [samples]
    rows = b"".join(b"\0" + _packed(row, depth) for one in passes if one.size for row in one)
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(data)) + name + data + struct.pack(">L", zlib.crc32(name + data)) for name, data in chunks
    )


def _passes(samples):
    grids = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for top, left, down, right in grids:
        yield samples[top::down, left::right]


def _packed(row, depth):
    values = row.reshape(-1)
    if depth >= 8:
        return values.astype(">u2" if depth == 16 else np.uint8).tobytes()
    bits = np.unpackbits(values.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()
