"""From scenes to the pixels of one tile: read, warp, mask, scale, select.

It knows nothing of routes and MosaicJSON; a tile is a frame, a scene is a list of files.
Start with `composer.Composer`; `reading` and `warp` fill layers, `selection` picks pixels.
"""
