"""The common form of tiles does not depend on their order, and holds every number of each."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from functools import reduce
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_async.errors import TileError
from mosaic_async.raster.form import RGB, TileFormat
from tests.effort import examples

RED, BLUE = (255, 0, 0, 255), (0, 0, 255, 255)
DTYPES = st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
NODATA = st.sampled_from([None, None, 0.0, -9999.0, math.nan])
MEASUREMENTS = st.builds(
    TileFormat,
    size=st.just(256),
    count=st.just(2),
    dtype=DTYPES,
    nodata=NODATA,
    colorinterp=st.sampled_from([(), ("gray", "undefined"), ("undefined", "undefined"), ("red", "green")]),
    descriptions=st.sampled_from([(), (None, None), ("a", "b"), ("a", None), ("c", "b")]),
)
PICTURES = st.one_of(
    st.builds(
        TileFormat,
        size=st.just(256),
        count=st.just(1),
        dtype=st.sampled_from(["uint8", "uint16"]),
        nodata=NODATA.filter(lambda value: value in (None, 0)),
        colorinterp=st.sampled_from([("gray",), ("undefined",)]),
    ),
    st.builds(
        TileFormat,
        size=st.just(256),
        count=st.just(3),
        dtype=st.sampled_from(["uint8", "uint16"]),
        colorinterp=st.just(RGB),
        palette=st.sampled_from([None, (RED,), (RED, BLUE), (BLUE,), (RED, BLUE, RED)]),
    ),
)


def joined(forms):
    return reduce(TileFormat.joined, forms)


@given(st.one_of(st.lists(MEASUREMENTS, min_size=2, max_size=4), st.lists(PICTURES, min_size=2, max_size=4)))
@settings(max_examples=examples(80), deadline=None)
def test_the_common_form_is_the_same_in_every_order_and_holds_every_number(forms):
    common = joined(forms)
    for order in permutations(forms):
        assert joined(order) == common
    assert joined([common, *forms]) == common
    assert TileFormat.from_dict(json.loads(json.dumps(asdict(common)))) == common
    assert common.count == max(form.count for form in forms)
    for form in forms:
        assert np.can_cast(form.dtype, common.dtype)
    if len({repr(form.nodata) for form in forms}) > 1:
        assert common.nodata is None
        assert common.nodata_differs


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ({"dtype": "int64"}, {"dtype": "float64"}, "no dtype holds"),
        ({"dtype": "int64"}, {"dtype": "uint64"}, "no dtype holds"),
        ({"count": 2}, {"count": 3, "colorinterp": RGB}, "band count"),
        ({"dtype": "float32"}, {"count": 3, "colorinterp": RGB}, "band count"),
        ({"count": 3}, {}, "band count"),
        ({"size": 512}, {}, "size"),
        ({"scales": ((0.1, 0.0),)}, {}, "scaled"),
    ],
)
def test_forms_that_have_none_in_common_say_why_in_both_orders(one, other, reason):
    forms = [TileFormat(**{"size": 256, "count": 1, "dtype": "uint8", **fields}) for fields in (one, other)]
    for order in permutations(forms):
        with pytest.raises(TileError, match=reason):
            joined(order)
