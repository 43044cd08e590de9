"""From a search to a MosaicJSON, and which scenes a mosaic shows (extra `stac`).

It knows nothing of tiles and pixels: footprints and metadata decide.
Start with `mosaicjson.create_mosaic`; `items` reads items from APIs and files.
"""

from mosaic_async.stac.items import search_api, search_files
from mosaic_async.stac.mosaicjson import create_mosaic
from mosaic_async.stac.provenance import scenes_of

__all__ = ["create_mosaic", "scenes_of", "search_api", "search_files"]
