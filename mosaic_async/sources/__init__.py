"""What to request: URL templates, the dialects of tilers, rendering options, STAC queries and signed URLs.

It knows no area, no pixel and no file of scenes; a source is data, not a class tree.
Start with `source.TileSource`; `tilers` makes one from another tiler, `dialects` says how to ask it.
"""
