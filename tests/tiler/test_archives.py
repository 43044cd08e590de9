"""The rules of archives, as the documents list them."""

from __future__ import annotations

import re
from pathlib import Path

from mosaic_async.tiler.scenes.archives import RULES, RULES_OF_ITEMS

TABLE = Path(__file__).parents[2] / "docs/archives.md"


def test_the_table_of_archives_has_the_rules_of_the_tiler_in_their_order():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TABLE.read_text().splitlines()
        if line.startswith("| `")
    ]
    assert [name.strip("`") for name, *_ in rows] == [*RULES_OF_ITEMS, *(rule.name for rule in RULES)]
    for (name, about, scale, offset, source), rule in zip(rows[len(RULES_OF_ITEMS) :], RULES, strict=True):
        assert (float(scale), float(offset)) == (rule.scale, rule.offset), name
        assert ("sine of the sun" in about) == rule.by_sun, name
        assert re.search(r"http|USGS|guide", source), name
