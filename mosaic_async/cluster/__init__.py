"""The parts of one output on a Dask cluster: who builds which part, and what each worker may take of the server.

It knows nothing of tiles and pixels: `build` makes the parts. Start reading in `dask_crew`.
"""

from mosaic_async.cluster.on_dask import build_mosaic_on, crew_at
from mosaic_async.cluster.site import TilerOrder

__all__ = ["TilerOrder", "build_mosaic_on", "crew_at"]
