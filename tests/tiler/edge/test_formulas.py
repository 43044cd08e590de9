"""Formulas that would hang, crash or fill a process are refused, in time that the length of the text bounds."""

from __future__ import annotations

import time
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rio_tiler.errors import InvalidExpression

from mosaic_async import UsageError
from mosaic_async.tiler.edge.formulas import check_colormap, check_colours, check_expression
from mosaic_async.tiler.pixels.expression import evaluate
from mosaic_async.tiler.pixels.pixels import Pixels

HARMFUL = {
    "a tower of powers": "b1+9**9**9",
    "a tower in brackets": "b1*(9**9)**9**9",
    "a power of a sum": "b1+(9+9)**(9*9)",
    "a power as exponent": "b1**(9**9)",
    "a large exponent": "b1**999999999",
    "a negative large exponent": "2**-99999",
    "a signed tower": "b1+-9**-(-9**9)",
    "a huge integer": "b1+" + "9" * 4000,
    "an integer above the limit": "b1*" + "9" * 30,
    "an infinite constant": "b1*1e999",
    "an imaginary constant": "b1*9j",
    "a text that multiplies": "b1+'a'*1000000000",
    "bytes that multiply": "b1+b'a'*1000000000",
    "a shift": "b1+(1<<999999999)",
    "a remainder by a band": "b1%(b1*0-1)",
    "the least integer by minus one": "(b1*0-2147483647-1)//(b1*0-1)",
    "a remainder by zero": "b1%0",
    "deep brackets": "(" * 300 + "b1" + ")" * 300,
    "deep calls": "sqrt(" * 60 + "b1" + ")" * 60,
    "deep signs": "-" * 3000 + "b1",
    "deep powers": "**".join(["b1"] * 200),
    "deep comparisons": "(b1>" * 50 + "b1" + ")" * 50,
    "many operations": "+".join(["b1"] * 600),
    "many formulas": ";".join(["b1"] * 100),
    "a band beyond all files": "b1+b99999999",
    "a band of many digits": "b" + "9" * 3000,
    "band zero": "b0",
    "a long text": "b1" + " " * 5000,
}


@pytest.mark.parametrize("text", HARMFUL.values(), ids=HARMFUL.keys())
def test_a_harmful_expression_is_refused_at_once(text):
    started = time.process_time()
    with pytest.raises(UsageError):
        check_expression(text)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "terms", "operations", "bands"),
    [
        ("b1", 1, 0, (1,)),
        ("(b2-b1)/(b2+b1)", 1, 3, (2, 1)),
        ("b1;b2;b3;where((b3>100)&(b2>1500)&(b1>500),(b2-b3)/(b2+b3),-1)", 4, 10, (1, 2, 3)),
        ("b1**2+b1**0.5+2**b1", 1, 5, (1,)),
        ("b1//2+b1%4", 1, 3, (1,)),
        ("B3*1e-4-3.4e38", 1, 2, (3,)),
        ("+".join(["b1"] * 400), 1, 399, (1,)),
    ],
)
def test_a_useful_expression_has_its_price(text, terms, operations, bands):
    found = check_expression(text)
    assert (found.terms, found.operations, found.bands) == (terms, operations, bands)


def test_the_notebook_s_formulas_are_separated_by_commas_outside_of_brackets():
    found = check_expression("b4,b3,where(b5>b4,b5,b4)", separator=",")
    assert (found.terms, found.bands) == (3, (4, 3, 5))


@pytest.mark.parametrize("text", ["b1*1e308*1e308", "1e308*b1*9**60*9**60", "exp(b1*1000)", "1/0*b1", "b1**64*b1**64"])
def test_an_expression_that_overflows_is_masked_or_refused_and_no_other_error(text):
    check_expression(text)
    pixels = Pixels(np.ones((1, 2, 2), "uint16"), np.ones((1, 2, 2), bool))
    try:
        made = evaluate(pixels, text)
    except InvalidExpression:
        return
    assert np.isfinite(made.data[made.valid]).all()


FORMULAS = {
    "(2*b1+1-sqrt((2*b1+1)**2-8*(b1-b2)))/2":
        lambda b1, b2: (2 * b1 + 1 - np.sqrt((2 * b1 + 1) ** 2 - 8 * (b1 - b2))) / 2,
    "b1*b2/(b1+b2)": lambda b1, b2: b1 * b2 / (b1 + b2),
    "sqrt(b1*b1+b2*b2)": np.hypot,
    "b1*b1-b1*b1+b2": lambda _, b2: b2,
}  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("dtype", ["uint16", "int32", "uint32"])
def test_products_of_whole_numbers_have_more_than_32_bits(text, dtype):
    """The first is MSAVI, of counts of Landsat."""
    values = np.array([[[65_535, 43_636, 50_000]], [[60_000, 7_273, 1]]], dtype)
    made = evaluate(Pixels(values, np.ones(values.shape, bool)), text)
    b1, b2 = values.astype(np.float64)
    np.testing.assert_allclose(made.data[0], FORMULAS[text](b1, b2), 1e-9)
    assert made.valid.all()


def test_whole_numbers_over_32_bits_are_refused_and_smaller_ones_keep_their_type():
    values = np.array([[[200, 46_341]]], "uint16")
    with pytest.raises(InvalidExpression, match=r"exceed 32 bits: multiply by 1\.0"):
        evaluate(Pixels(values, np.ones(values.shape, bool)), "b1*b1")
    left_out = evaluate(Pixels(values, np.array([[[True, False]]])), "b1*b1;b1-300")
    assert left_out.data.dtype == "int32"
    assert left_out.data[:, 0, 0].tolist() == [40_000, -100]
    as_floats = evaluate(Pixels(values, np.ones(values.shape, bool)), "b1*1.0*b1")
    assert as_floats.data.tolist() == [[[40_000.0, 46_341.0**2]]]


pieces = st.sampled_from(
    ["b1", "b2", "9", "-1", "0", "1e3", "+", "-", "*", "/", "**", "//", "%", "(", ")", "&", ">", ","]
)


@given(st.lists(pieces, max_size=12).map("".join))
def test_whatever_passes_can_be_evaluated_without_harm(text):
    try:
        check_expression(text)
    except UsageError:
        return
    pixels = Pixels(np.array([[[0, 1, 7]], [[65535, 2, 3]]], "uint16"), np.ones((2, 1, 3), bool))
    with suppress(InvalidExpression):
        evaluate(pixels, text)


def test_colour_formulas_and_maps_have_limits():
    assert check_colours("gamma RGB 3.5, saturation 1.7, sigmoidal RGB 15 0.35") == 3
    check_colormap('{"0": [0, 0, 0, 255]}')
    for text in (",".join(["gamma R 1"] * 1000), "x" * 100_000):
        with pytest.raises(UsageError):
            check_colours(text)
    for text in ("[" * 1000, "9" * 100_000):
        with pytest.raises(UsageError):
            check_colormap(text)
