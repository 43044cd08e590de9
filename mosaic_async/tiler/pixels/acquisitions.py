"""Scenes of one acquisition, which count once: reprocessed ones, neighbours on one orbit, the same in two collections.

It knows only what items say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import pairwise

from mosaic_async.tiler.scenes.scene import Scene

GROUPINGS = ("acquisition", "day", "none")
"""What counts once: an acquisition, a day by the sun, or every scene by itself."""
_PAUSE = timedelta(seconds=25)
"""Maximum time between neighbours on one orbit: rows of Landsat are 24 s apart, and orbits hours."""


def grouped(scenes: Iterable[Scene], by: str) -> list[list[Scene]]:
    """Group scenes that count once; scenes without a date are alone.

    Within a group, the last id in alphabetical order comes first: ids end with baselines, versions and dates of
    processing. So a group has the same pixels in whatever order the scenes come.

    Args:
        scenes: in the order of the mosaic, which groups keep by their first scene.
        by: one of `GROUPINGS`.
    """
    scenes = list(scenes)
    keys = {"acquisition": _acquisitions, "day": _days}[by](scenes) if by != "none" else list(range(len(scenes)))
    groups: dict[object, list[Scene]] = {}
    for key, scene in zip(keys, scenes, strict=True):
        groups.setdefault(key, []).append(scene)
    return [sorted(group, key=lambda scene: (scene.id, scene.name), reverse=True) for group in groups.values()]


def _acquisitions(scenes: Sequence[Scene]) -> list[object]:
    """Return a key for each scene: of its datatake, or of the chain of scenes that its platform took in one go."""
    keys: list[object] = list(range(len(scenes)))
    dated = [place for place, scene in enumerate(scenes) if scene.taken is not None]
    order = sorted(dated, key=lambda place: (scenes[place].platform, scenes[place].taken or 0))
    for before, place in pairwise(order):
        if _are_one(scenes[before], scenes[place]):
            keys[place] = keys[before]
    return keys


def _are_one(one: Scene, other: Scene) -> bool:
    datatakes = [scene.properties.get("s2:datatake_id") for scene in (one, other)]
    if None not in datatakes:
        return datatakes[0] == datatakes[1]
    assert one.taken is not None
    assert other.taken is not None
    ends = [_end_of_composite(scene) for scene in (one, other)]
    return one.platform == other.platform and other.taken - one.taken <= _PAUSE and ends[0] == ends[1]


def _end_of_composite(scene: Scene) -> str | None:
    """Return when the last picture of a composite was taken: a month is not the year that begins with it."""
    return None if scene.properties.get("datetime") else scene.properties.get("end_datetime")


def _days(scenes: Sequence[Scene]) -> list[object]:
    return [_day(scene) or place for place, scene in enumerate(scenes)]


def _day(scene: Scene) -> str | None:
    """Return the day by the sun at the scene: a pass near the antimeridian is not cut at midnight in Greenwich."""
    if scene.taken is None:
        return None
    west, _, east, _ = scene.bounds or (0, 0, 0, 0)
    hours = ((west + east + (360 if west > east else 0)) / 2) / 15
    return (scene.taken + timedelta(hours=hours)).date().isoformat()
