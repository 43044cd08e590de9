"""Tiles that no tile server serves: a folder, an MBTiles, a PMTiles here or behind a URL.

A server on this machine answers for them as long as a run lasts, so that they go the way of all tiles. Start with
`found.opened_store`.
"""
