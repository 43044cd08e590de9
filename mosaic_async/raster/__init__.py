"""What pixels are: decoding a tile, the canvas of a part, codecs, overviews, stitching and reading back.

It does not know the network, tile sources or the work folder: its input is bytes, arrays and paths.
Start with `canvas.Canvas`. `tile` decodes what it holds, and `assembly` makes one file of the parts that it seals.
"""
