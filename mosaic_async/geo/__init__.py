"""Where tiles lie: areas, the tiles that cover them, and the output's grid of parts, windows and levels.

It knows no server, no file and no pixel value; it alone uses mercantile and supermercado.
Start with `grid.Grid`; `area.Area` and `cover.Cover` come before it.
"""
