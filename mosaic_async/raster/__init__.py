"""What pixels are: decoding a tile, the canvas of a part, codecs, overviews, stitching and reading back.

It knows no network, no tile source and no work folder; it gets bytes, arrays and paths.
Start with `canvas.Canvas`; `tile` comes before it, `assembly` makes one file of what it seals.
"""
