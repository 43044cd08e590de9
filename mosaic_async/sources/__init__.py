"""What to request: URL templates, the dialects of tilers, rendering options, STAC queries and signed URLs.

It knows nothing of areas, pixels and files of scenes; a source is data, not a class tree.
Start with `source.TileSource`; `tilers` makes one from another tiler, `dialects` writes its parameters.
"""
