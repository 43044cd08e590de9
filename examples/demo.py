"""The notebook's two recipes on the sample scenes: a true-colour median mosaic and a highest-NDVI mosaic.

    python examples/demo.py [FOLDER]

Each recipe writes a COG, and a PNG to look at. The embedded tiler renders the scenes; nothing is downloaded.
"""

import asyncio
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo.cogeo import cog_validate

from mosaic_async import MosaicReport, build_mosaic
from mosaic_async.tiler import local_tiler

SCENES = Path(__file__).parent / "scenes"
PARANA = SCENES / "landsat8-parana-2020-60m"
COLORADO = SCENES / "landsat57-colorado-2008-2013"

# The notebook had 10000 times reflectance in 16 bits; these scenes have raw counts. So the lower limits remove the haze
# of each band, and the range is wide, because the formula brightens dark values a lot.
TRUE_COLOR = {
    "bands": ["B4", "B3", "B2"],
    "pixel_selection": "median",
    "rescale": [(5200, 50200), (5900, 50900), (6800, 51800)],
    "color_formula": "gamma RGB 3.5, saturation 1.7, sigmoidal RGB 15 0.35",
}
PARANA_AREA = (-55.0776, -25.5967, -54.2267, -24.9937)

# Short-wave infrared, near infrared and red of the greenest of 105 dates; the last band decides and is dropped. In
# cloud shadow the corrected reflectance is close to 0, and the ratio of two such values is not a useful index.
HIGHEST_NDVI = {
    "expression": "b5;b4;b3;where((b3>100)&(b4>1500)&(b5>500),(b4-b3)/(b4+b3),-1)",
    "pixel_selection": "lastbandhigh",
}
COLORADO_AREA = (-106.925, 40.2799, -106.9033, 40.2966)


async def true_color(folder: Path) -> MosaicReport:
    """Build a median mosaic of two overlapping footprints over the Itaipu reservoir, coloured by the tiler."""
    async with local_tiler(PARANA, **TRUE_COLOR) as source:
        output = folder / "parana-median.tif"
        return await build_mosaic(source, PARANA_AREA, output, zoom=11, clip=True, overwrite=True)


async def highest_ndvi(folder: Path) -> MosaicReport:
    """Build a mosaic of 105 dates over a forest in Colorado, each pixel from the date when it was greenest."""
    async with local_tiler(COLORADO, **HIGHEST_NDVI) as source:
        return await build_mosaic(
            source,
            COLORADO_AREA,
            folder / "colorado-highest-ndvi.tif",
            zoom=14,
            dtype="int16",
            profile="zstd",
            clip=True,
            overwrite=True,
        )


def quicklook(cog: Path, *, high: Sequence[float] = (255, 255, 255), width: int = 900) -> Path:
    """Write a PNG at most `width` pixels wide: 0 to `high` becomes 0 to 255, masked pixels are transparent."""
    with rasterio.open(cog) as dataset:
        scale = min(1.0, width / dataset.width)
        shape = (round(dataset.height * scale), round(dataset.width * scale))
        pixels = dataset.read(out_shape=(3, *shape), resampling=Resampling.average).astype("float32")
        mask = dataset.dataset_mask(out_shape=shape)
    pixels = np.clip(pixels / np.reshape(high, (3, 1, 1)) * 255, 0, 255)
    path = cog.with_suffix(".png")
    profile = {"driver": "PNG", "count": 4, "height": shape[0], "width": shape[1], "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # a PNG is a picture
        with rasterio.open(path, "w", **profile) as image:
            image.write(np.concatenate([pixels.astype("uint8"), mask[np.newaxis]]))
    return path


def main(folder: Path) -> None:
    """Build both mosaics, validate them and draw them."""
    folder.mkdir(parents=True, exist_ok=True)
    for recipe, high in ((true_color, (255, 255, 255)), (highest_ndvi, (2600, 6200, 1300))):
        report = asyncio.run(recipe(folder))
        is_valid, errors, warnings = cog_validate(report.output, strict=True, quiet=True)
        if not is_valid:
            sys.exit(f"{report.output} is not a valid COG: {errors + warnings}")
        picture = quicklook(report.output, high=high)
        print(
            f"{report.output.name}: {report.width} x {report.height} pixels from {report.tiles_placed} tiles "
            f"in {report.seconds:.1f} s, a valid COG; look at {picture}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
