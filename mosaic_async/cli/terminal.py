"""What people read when a command has ended: the plan and the reports as text. It knows nothing of where it goes."""

from __future__ import annotations

from tqdm import tqdm

from mosaic_async.build.plan import MosaicPlan
from mosaic_async.build.verify import VerifyReport
from mosaic_async.events import MosaicReport, SameBytes, SceneReport, zxy
from mosaic_async.geo.grid_names import WEB_MERCATOR

_SHOWN = 20
"""Differences of each kind that `verify` shows."""


_KINDS = {
    "not found": "not found, HTTP 404",
    "no body": "without a body",
    "outside": "outside of the matrix, HTTP 400",
    "denied": "denied by the bucket, HTTP 403",
    "rule": "by a rule",
    "transparent": "transparent",
}
"""Kinds of empty tiles in words; what the server plainly calls empty (204) needs none."""


def report_text(report: MosaicReport) -> str:
    """Return what a run did."""
    west, south, east, north = report.bounds
    return (
        f"{report.place}: {report.width} x {report.height} pixels, {_size(report.bytes_written)}, "
        f"W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}\n"
        f"{report.tiles_placed:,} tiles placed, {_empty_text(report)}, {report.tiles_failed:,} failed; "
        f"{report.requests:,} requests, {report.retries:,} retries, {_size(report.bytes_received)} received\n"
        f"{report.seconds:.1f} s, {_counted(report.parts_total, 'part')} ({report.parts_resumed:,} resumed), "
        f"peak memory {_size(report.peak_memory or report.peak_rss)}"
        + _same_bytes_text(report.same_bytes)
        + _values_text(report)
        + _scenes_text(report.scenes)
        + "".join(f"\n{one.worker}: {_counted(one.parts, 'part')}, {one.tiles:,} tiles" for one in report.workers)
    )


def shard_text(report: MosaicReport, shard: str) -> str:
    """Return what a shard did."""
    parts = f"{_counted(report.parts_total, 'part')} ({report.parts_resumed:,} were there)"
    return (
        f"shard {shard} of {report.output}: {parts}, "
        f"{report.tiles_placed:,} tiles placed, {_empty_text(report)}, {report.tiles_failed:,} failed; "
        f"{report.requests:,} requests, {report.retries:,} retries, {_size(report.bytes_received)} received; "
        f"{report.seconds:.1f} s, peak memory {_size(report.peak_rss)}" + _same_bytes_text(report.same_bytes)
    )


def _empty_text(report: MosaicReport) -> str:
    """Return the number of empty tiles, and apart how many there are of each kind that needs a word."""
    kinds = [
        f"{count:,} of them {_KINDS[kind]}" for kind, count in sorted(report.empty_kinds.items()) if kind in _KINDS
    ]
    return f"{report.tiles_empty:,} empty" + (f" ({', '.join(kinds)})" if kinds else "")


def _same_bytes_text(found: SameBytes | None) -> str:
    """Return a warning if many tiles are one picture."""
    if found is None:
        return ""
    return (
        f"\nwarning: {found.tiles:,} of {found.total:,} tiles are the same bytes; if that picture means "
        f'"no data", re-run with --fresh --overwrite --empty sha256:{found.sha256}'
    )


def _values_text(report: MosaicReport) -> str:
    """Return warnings if the overviews may be averages of class codes, and if tiles may count in different steps."""
    lines = []
    if report.averaged_values:
        lines.append(
            f"warning: overviews are averages of only {report.averaged_values} different values; if these are class "
            "codes, re-run with --fresh --overwrite --overview-resampling mode (or nearest)"
        )
    if report.tile_dtypes:
        lines.append(
            f"warning: the tiles are {' and '.join(report.tile_dtypes)}, and their numbers are kept; if the largest "
            "number of each means the same (white is 255 of uint8, 65535 of uint16, 1.0 of float32), request one "
            "dtype: another format in the URL, or --rescale"
        )
    return "".join(f"\n{line}" for line in lines)


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


def _scenes_text(scenes: SceneReport) -> str:
    """Return which scenes the tiles show; nothing where the tiler does not tell."""
    lines = []
    if scenes.total:
        days = f", {scenes.first} to {scenes.last}" if scenes.first else ""
        lines.append(f"{_counted(scenes.total, 'scene')}{days}")
    if scenes.lacking:
        lines.append(
            f"warning: {scenes.lacking:,} tiles lack scenes that cannot be read: {scenes.skipped_total:,} in all, "
            f"such as {scenes.skipped[0].name}{_because(scenes.skipped[0].reason)}"
        )
    return "".join(f"\n{line}" for line in lines)


def verify_text(report: VerifyReport) -> str:
    """Return what was checked, and the first differences."""
    words = {"equal": "equal to the published one", "differs": "NOT the published one", "absent": "not recorded"}
    lines = [
        f"{report.output}: {_verdict(report)}",
        f"digest      {words[report.digest]}",
        f"blocks      {report.blocks:,} decoded, {len(report.block_faults):,} differ",
    ]
    if not report.overviews_checked:
        lines.append("overviews   not checked: the file does not record how they were made")
    if report.tiles_compared:
        lines.append(f"tiles       {report.tiles_compared:,} compared, {len(report.tile_faults):,} differ")
    if report.header_fault:
        lines.append(f"header      {report.header_fault}")
    lines += [f"level {one.level} block {one.row},{one.col}: {one.reason}" for one in report.block_faults[:_SHOWN]]
    lines += [f"tile {zxy(one.tile)}: {one.reason}" for one in report.tile_faults[:_SHOWN]]
    if max(len(report.block_faults), len(report.tile_faults)) > _SHOWN:
        lines.append("more with --json")
    return "\n".join(lines)


def _verdict(report: VerifyReport) -> str:
    if report.is_sound:
        return "sound"
    return "NOT READABLE" if report.header_fault else "DIFFERS"


def plan_text(found: MosaicPlan) -> str:
    """Return what a run would do."""
    west, south, east, north = found.bounds
    lines = [
        f"zoom        {found.zoom}, tiles of {found.tile_size} pixels, {_resolution(found)}",
        f"tiles       {found.tiles:,}",
        f"output      {found.width:,} x {found.height:,} pixels, {found.count} x {found.dtype}, mask: {found.mask}",
        f"bounds      W {west:.5f} S {south:.5f} E {east:.5f} N {north:.5f}",
        f"parts       {found.parts:,} of {found.part_size:,} pixels",
        f"size        {_size(found.raw_bytes)} raw, about {_size(found.estimated_bytes)} as a file",
        f"memory      {_memory(found)}",
    ]
    if found.is_past_one_file:
        lines.append(f"headers     {_size(found.head_bytes)} in one file; --as-collection makes many with small ones")
    if found.assumed:
        lines.append("guessed     bands and dtype, because the tile in the centre is empty")
    else:
        time = tqdm.format_interval(found.seconds or 0)
        lines.append(f"download    about {_size(found.download_bytes or 0)}")
        lines.append(f"time        about {time}, if every tile takes as long as the one that was fetched")
    lines += [
        f"{'profiles' if index == 0 else '':11} {name}: about {_size(cost.nbytes)}, {cost.seconds:,.0f} s on one core"
        for index, (name, cost) in enumerate(found.profiles.items())
    ]
    return "\n".join(lines)


def _memory(found: MosaicPlan) -> str:
    most = f"{_size(found.memory)} at most"
    return most if found.usual_memory == found.memory else f"about {_size(found.usual_memory)}, {most}"


def _resolution(found: MosaicPlan) -> str:
    if found.crs == WEB_MERCATOR:
        return f"{found.resolution:.2f} m/pixel at the equator"
    return f"{found.resolution:.9g} units/pixel of {found.crs[:60]}"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(nbytes: float) -> str:
    return f"{tqdm.format_sizeof(nbytes)}B"
