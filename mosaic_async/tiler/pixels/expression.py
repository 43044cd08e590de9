"""Band arithmetic on pixels, as rio-tiler has it; but what is no number is masked and not made a number."""

from __future__ import annotations

import numexpr
import numpy as np
from rio_tiler.errors import InvalidExpression
from rio_tiler.expression import get_expression_blocks, validate_expression

from mosaic_async.tiler.pixels.pixels import Pixels


def evaluate(pixels: Pixels, expression: str) -> Pixels:
    """Make bands of bands.

    A pixel is valid where all bands are that came in and the outcome is finite: rio-tiler makes 0 of 0/0 and the
    largest float of 1/0, which any selection of highest values would then choose.

    Args:
        pixels: bands that the formulas call b1, b2, ...
        expression: formulas separated by `;`.

    Raises:
        rio_tiler.errors.InvalidExpression: it is none, or names a band that is not there.
    """
    names = {f"b{number}": band for number, band in enumerate(pixels.data, start=1)}
    blocks = get_expression_blocks(validate_expression(expression))
    try:
        with np.errstate(all="ignore"):
            bands = [numexpr.evaluate(block.strip(), local_dict=names, global_dict={}) for block in blocks]
    except (KeyError, TypeError, ValueError, NotImplementedError, SyntaxError, AttributeError) as error:
        raise InvalidExpression(f"invalid expression: {error}") from error
    shape = pixels.data.shape[1:]
    data = np.array([np.broadcast_to(band, shape) for band in bands])
    return Pixels(data, pixels.whole & np.isfinite(data))
