"""Which scenes there are: a mosaic's document, its index by quadkey, and one scene's files.

It knows nothing of pixels, warping or routes.
Start with `mosaic.Mosaic`; `quadkey_index` finds the scenes of a tile, `scene` says what files one has.
"""
