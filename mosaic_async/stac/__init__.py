"""From a search to a MosaicJSON, which scenes a mosaic shows, and outputs as STAC (extra `stac`).

It knows nothing of tiles: footprints and metadata decide; of an output it reads where its data is.
Start with `mosaicjson.create_mosaic`; `items` reads items from APIs and files. What describes an output starts with
`collection.describe_collection`.
"""

from mosaic_async.stac.items import search_api, search_files
from mosaic_async.stac.mosaicjson import create_mosaic
from mosaic_async.stac.provenance import scenes_of

__all__ = ["create_mosaic", "scenes_of", "search_api", "search_files"]
