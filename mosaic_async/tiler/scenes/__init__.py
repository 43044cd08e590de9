"""The scenes of a mosaic: its document, its index by quadkey, and the files of one scene.

It knows nothing of pixels, warping or routes.
Start with `mosaic.Mosaic`; `quadkey_index` finds the scenes of a tile, `scene` lists the files of one.
"""
