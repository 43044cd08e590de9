"""Band arithmetic on pixels as in rio-tiler, except that results that are not finite are masked."""

from __future__ import annotations

import numexpr
import numpy as np
from rio_tiler.errors import InvalidExpression
from rio_tiler.expression import get_expression_blocks, validate_expression

from mosaic_async.tiler.pixels.pixels import Pixels


def evaluate(pixels: Pixels, expression: str) -> Pixels:
    """Compute bands from bands.

    A pixel is valid if all input bands are valid and the result is finite: rio-tiler turns 0/0 into 0 and 1/0 into the
    largest float, which selections of the highest value would then choose.

    Args:
        pixels: the bands, named b1, b2, ... in the formulas.
        expression: formulas separated by `;`.

    Raises:
        rio_tiler.errors.InvalidExpression: the expression is malformed, or names a missing band.
    """
    names = {f"b{number}": band for number, band in enumerate(pixels.data, start=1)}
    blocks = get_expression_blocks(validate_expression(expression))
    if not blocks:
        raise InvalidExpression("the expression is empty")
    try:
        with np.errstate(all="ignore"):
            bands = [numexpr.evaluate(block.strip(), local_dict=names, global_dict={}) for block in blocks]
    except (KeyError, TypeError, ValueError, ArithmeticError, RuntimeError, SyntaxError, AttributeError) as error:
        raise InvalidExpression(f"invalid expression: {error}") from error
    shape = pixels.data.shape[1:]
    data = np.array([np.broadcast_to(band, shape) for band in bands])
    return Pixels(data, pixels.whole & np.isfinite(data))
