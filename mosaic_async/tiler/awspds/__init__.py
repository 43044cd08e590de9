"""The contract of the 2020 notebook's server, awspds-mosaic: its routes, band names and pictures.

It knows nothing of how pixels are read; it asks `pixels` for arrays and answers with bytes.
Start with `routes`; `picture` renders one tile.
"""
