"""Band arithmetic on pixels as in rio-tiler, except that results that are not finite are masked, and none overflows."""

from __future__ import annotations

import numexpr
import numpy as np
from numpy.typing import NDArray
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
    is_narrow = pixels.data.dtype.kind in "iu" and np.can_cast(pixels.data.dtype, np.int32)
    operands = pixels.data.astype(np.int64) if is_narrow else pixels.data  # numexpr's 32 bits do not hold a square
    names = {f"b{number}": band for number, band in enumerate(operands, start=1)}
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
    valid = pixels.whole & np.isfinite(data)
    return Pixels(_narrow(data, valid) if is_narrow else data, valid)


def _narrow(data: NDArray[np.generic], valid: NDArray[np.bool_]) -> NDArray[np.generic]:
    """Return whole numbers in 32 bits, which every tile can have.

    Raises:
        rio_tiler.errors.InvalidExpression: a valid number does not fit.
    """
    if data.dtype != np.int64:
        return data
    narrow = data.astype(np.int32)
    if not np.array_equal(narrow[valid], data[valid]):
        raise InvalidExpression("whole numbers of the expression exceed 32 bits: multiply by 1.0 to get floats")
    return narrow
