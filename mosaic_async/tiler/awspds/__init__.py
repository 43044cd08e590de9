"""The contract of the 2020 notebook's server, awspds-mosaic: its routes, band names and pictures.

It knows nothing of how pixels are read; it takes arrays from `pixels` and returns bytes.
Start with `routes`; `picture` renders one tile.
"""
