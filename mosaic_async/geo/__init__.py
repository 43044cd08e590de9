"""Where tiles lie: areas, the tiles that cover them, and the output's grid of parts, windows and levels.

It does not know servers, files or pixel values.
Start with `grid.Grid`, which is made from an `area.Area` and its `cover.Cover`. A `matrix.TileMatrix` says where tiles
lie; Web Mercator is one of these.
"""
