"""How an object is put together of stretches."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_async.cloud.address import address_of, is_address
from mosaic_async.cloud.stretches import LEAST, Kept, Stretch, is_copied, steps_of, total
from mosaic_async.errors import UsageError

MIB = 2**20
LENGTHS = st.one_of(
    st.integers(1, 3000), st.integers(1, 20 * MIB), st.sampled_from([LEAST - 1, LEAST, LEAST + 1, 16 * MIB, 600 * MIB])
)


@given(st.lists(st.tuples(st.booleans(), LENGTHS), max_size=12))
def test_steps_hold_all_bytes_in_their_order_and_only_the_last_is_small(pieces):
    stretches = [
        Stretch(Kept(f"{index}", "etag") if is_kept else Path(f"{index}"), 7, length)
        for index, (is_kept, length) in enumerate(pieces)
    ]
    steps = steps_of(stretches)
    flat = [stretch for step in steps for stretch in step]
    for stretch in stretches:
        found = [part for part in flat if part.source == stretch.source]
        assert [part.start for part in found] == [7 + sum(one.length for one in found[:i]) for i in range(len(found))]
        assert sum(part.length for part in found) == stretch.length
    assert [part.source for part in flat] == sorted((part.source for part in flat), key=_number)
    assert all(total(step) >= LEAST for step in steps[:-1])
    assert all(total(step) <= 16 * MIB for step in steps if not is_copied(step))


def test_large_stretches_pass_this_machine_by_no_more_than_what_the_front_borrows():
    front, bodies = Stretch(Path("front"), 0, 30_000), [Stretch(Kept(f"{i}", "e"), 0, 30 * MIB) for i in range(40)]
    steps = steps_of([front, *bodies])
    assert sum(total(step) for step in steps if not is_copied(step)) == LEAST
    assert len(steps) == 41


def test_a_terabyte_in_one_stretch_is_copied_in_fewer_steps_than_a_store_takes():
    steps = steps_of([Stretch(Kept("a", "e"), 0, 2**42)])
    assert len(steps) <= 10_000
    assert max(map(total, steps)) <= 5 * 2**30


@pytest.mark.parametrize(
    "name", ["s3://bucket/folder/key.tif", "s3:/bucket/folder/key.tif", "S3://bucket/folder/key.tif"]
)
def test_an_address_is_read_also_from_what_a_path_leaves_of_it(name):
    assert is_address(name)
    assert str(address_of(name)) == "s3://bucket/folder/key.tif"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gs://bucket/key.tif", "s3://"),
        ("az://bucket/key.tif", "s3://"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/folder/", "names no object"),
        ("s3:///key.tif", "names no object"),
    ],
)
def test_an_address_of_nothing_that_can_be_written_is_refused_with_what_can(name, words):
    with pytest.raises(UsageError, match=words):
        address_of(name)


def _number(source: Path | Kept) -> int:
    return int(source.key if isinstance(source, Kept) else source.name)
