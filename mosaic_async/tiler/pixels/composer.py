"""Tiles of many scenes: which scenes are read, in which order, how many at once, and which failed.

One per process. A scene that cannot be read is left out and reported. The tile fails only if every scene fails, because
an empty tile would then be wrong.
"""

from __future__ import annotations

import logging
import math
import re
import string
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any
from urllib.parse import quote, urlsplit

from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window
from rio_tiler.errors import RioTilerError

from mosaic_async.errors import SourceError, UsageError
from mosaic_async.sources.signing import Signer, is_ending
from mosaic_async.tiler.pixels.acquisitions import grouped
from mosaic_async.tiler.pixels.datasets import DatasetPool, Palette
from mosaic_async.tiler.pixels.frame import Frame, TooLargeError
from mosaic_async.tiler.pixels.meeting import Meeting
from mosaic_async.tiler.pixels.pixels import Pixels
from mosaic_async.tiler.pixels.selection import Read, Selection
from mosaic_async.tiler.pixels.strips import joined, strips_of
from mosaic_async.tiler.pixels.terms import Terms
from mosaic_async.tiler.pixels.turns import Bounds
from mosaic_async.tiler.pixels.view import View
from mosaic_async.tiler.scenes.scene import Scene, open_scene, renewed
from mosaic_async.tiler.scenes.survey import Survey
from mosaic_async.tiler.ticket import AbandonedError, check_ticket, held

_LOGGER = logging.getLogger("mosaic_async.tiler")
_SAFE = " " + string.punctuation.replace(",", "")
"""Characters of a name that a header keeps; commas separate names."""
_FIRST = Selection("first")
_LONGEST_REASON = 200
_USUAL_SIZE = 12.0
"""Bytes of a pixel of one scene where none has been read yet: three bands of 16 bits, and their validity."""
_RENEWED = 20_000
"""Scenes with renewed signatures that a process remembers."""
_REMOTE_TILES = 4
_REMOTE_READS = 8
"""Scenes of one tile that are read at once from a server."""


@dataclass
class Composed:
    """A tile, and which of its scenes were read or skipped."""

    pixels: Pixels | None
    """None if no scene reaches the tile."""
    read: list[tuple[str, str]] = field(default_factory=list)
    """Names and dates of the scenes that were read, in order; the date is "" if a scene has none."""
    palettes: set[Palette | None] = field(default_factory=set)
    """The different colour tables of these."""
    rules: list[str] = field(default_factory=list)
    """For each of these, the rules by which its counts were converted; "" if they stay as they are."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Names of the scenes that could not be read, and the reasons."""

    @property
    def palette(self) -> Palette | None:
        """The colour table of all scenes; None if they have none, or several."""
        return next(iter(self.palettes)) if len(self.palettes) == 1 else None

    @property
    def used(self) -> list[str]:
        """Names of the scenes that were read, in order."""
        return [name for name, _ in self.read]


COMPOSED: ContextVar[list[Composed] | None] = ContextVar("COMPOSED", default=None)
"""The list that collects the tiles of one response; None outside of a request."""


class UnreadableSceneError(SourceError):
    """None of the scenes of a tile can be read."""

    public: str
    """The message without what libraries say, which may tell which files exist on this machine."""


@dataclass(frozen=True)
class Room:
    """How large a tile may be, by what reading its files tells."""

    values: int | None = None
    """Maximum values of one scene: pixels times bands; None: no limit."""
    bytes_held: float = math.inf
    """Maximum bytes of all scenes that a selection holds at once."""
    at_once: int | None = None
    """Bytes of all scenes above which a tile is composed in strips; None: no strips."""
    tiles: int = 2
    """Tiles of local scenes that are composed at once, and tiles that are finished at once."""
    buffers: int = 2**27
    """Maximum bytes of the buffers of idle datasets."""


class Composer:
    """Composes tiles of scenes."""

    def __init__(
        self,
        *,
        is_stac: bool,
        is_local: bool,
        signer: Signer | None = None,
        room: Room | None = None,
        survey: Survey | None = None,
    ) -> None:
        """Create a composer with its own pool of open datasets.

        Args:
            is_stac: whether scenes are STAC items; otherwise they are plain files.
            is_local: whether scenes are on this machine's disks.
            signer: renews signatures that expire during the run; None: `Signer()`.
            room: how large a tile may be; None: no limit.
            survey: what all scenes of the mosaic agree on; None: each tile checks its own scenes.
        """
        self._survey = survey or Survey()
        self._room = room or Room()
        self._signer = signer or Signer()
        self._renewed: dict[str, Scene] = {}
        self._sizes: dict[Any, float] = {}
        """Bytes of a pixel of one scene, with its validity, by the assets that a view shows."""
        self.pool = DatasetPool(buffer_limit=self._room.buffers)
        self._is_stac = is_stac
        self._reads = 1 if is_local else _REMOTE_READS
        self._turns = threading.BoundedSemaphore(self._room.tiles if is_local else _REMOTE_TILES)
        self.finishing = threading.BoundedSemaphore(self._room.tiles)
        """Held while a tile is coloured and encoded, which takes ten times the size of the tile: one thread per request
        would take gigabytes and save no time."""

    def compose(
        self, names: Sequence[str], frame: Frame, degrees: Bounds, view: View, selection: Selection
    ) -> Composed:
        """Compose a tile of scenes.

        Args:
            names: names of the scenes, in order.
            frame: the tile.
            degrees: west, south, east, north of the tile.
            view: what the tile shows of a scene.
            selection: how scenes that overlap are combined.

        Raises:
            UsageError: the selection needs dates, and a scene has none; or the tile is too large.
            Exception: the error of the first scene, if all scenes failed.
        """
        composed = Composed(None)
        failures: list[Exception] = []
        if (answer := COMPOSED.get()) is not None:
            answer.append(composed)
        view = replace(view, terms=Terms.of(self._survey, view.assets, in_counts=not view.reflectance))
        work = _Work(self, replace(frame, max_values=self._room.values), view, selection, composed, failures)
        with held(self._turns):
            scenes = self._scenes(names, degrees, composed, failures, selection)
            if selection.holds_all and self._room.at_once is not None:
                made = self._in_strips(work, grouped(scenes, selection.group_by), self._room.at_once)
            else:
                groups = grouped(scenes, selection.group_by) if selection.holds_all else ([scene] for scene in scenes)
                made = selection.compose(self._ahead(partial(work.read, group) for group in groups))
            # A tile has one mask for all bands: where only some have data, the others would show a valid 0.
            composed.pixels = made.where(made.whole) if made else None
        if failures and not composed.read:
            raise _without_secrets(failures[0], next(iter(composed.skipped)))
        return composed

    def _in_strips(self, work: _Work, groups: Sequence[Sequence[Scene]], limit: int) -> Pixels | None:
        """Compose a tile whose scenes are held all at once, strip by strip where they are too large for that."""
        size = self._sizes.get(work.view.assets, _USUAL_SIZE)
        parts = []
        for strip in strips_of(work.frame, size * len(groups) * work.frame.width, limit):
            reads = (partial(work.read_strip, group, strip) for group in groups)
            parts.append((strip, work.selection.compose(self._ahead(reads))))
        if work.size:
            self._sizes[work.view.assets] = work.size
        work.sort_names(groups)
        return joined(parts, is_valid=work.selection.name == "count")

    def check_room(self, size: int) -> None:
        """Check that the scenes of a tile, in bytes, may be held at once.

        Raises:
            TooLargeError: they are too large.
        """
        if size > self._room.bytes_held:
            raise TooLargeError(
                f"the scenes of this tile take more than {self._room.bytes_held / 2**20:.0f} MiB",
                hint="request a smaller `tilesize`, a higher zoom or fewer bands",
            )

    def readable(self, scene: Scene) -> Scene:
        """Return the scene with valid signatures: those of its URLs expire during a long run."""
        current = self._renewed.get(scene.name, scene)
        if is_ending(current.ends) or (current is scene and self._signer.signs_unsigned):
            if len(self._renewed) >= _RENEWED:
                self._renewed.clear()
            current = self._renewed[scene.name] = renewed(scene, self._signer)
        return current

    def _scenes(
        self, names: Sequence[str], degrees: Bounds, composed: Composed, failures: list[Exception], selection: Selection
    ) -> Iterable[Scene]:
        found = self._opened(names, degrees, composed, failures)
        if selection.newest_first is None:
            return found
        scenes = list(found)
        if undated := [scene.name for scene in scenes if scene.taken is None]:
            raise UsageError(f"{selection.name} needs the date of every scene, and {_shown(undated[0])} has none")
        sign = -1 if selection.newest_first else 1
        return sorted(scenes, key=lambda scene: sign * scene.taken.timestamp() if scene.taken else 0)

    def _opened(
        self, names: Sequence[str], degrees: Bounds, composed: Composed, failures: list[Exception]
    ) -> Iterator[Scene]:
        for name in names:
            try:
                scene = open_scene(name, is_item=self._is_stac)
            except Exception as error:  # noqa: BLE001 - of the disk, the HTTP client, the parser
                failures.append(error)
                _skip(composed, name, error, "its item cannot be read")
                continue
            if scene.may_touch(degrees):
                yield scene

    def _ahead(self, reads: Iterable[Read]) -> Iterator[Read]:
        """Read scenes ahead in threads if they are remote, and yield them in order."""
        if self._reads == 1:
            yield from reads
            return
        waiting: deque[Future[Pixels | None]] = deque()
        source = iter(reads)
        with ThreadPoolExecutor(self._reads) as threads:
            try:
                for read in source:
                    waiting.append(threads.submit(copy_context().run, read, None))
                    if len(waiting) == self._reads:
                        yield _cut(waiting.popleft())
                while waiting:
                    yield _cut(waiting.popleft())
            finally:
                for future in waiting:
                    future.cancel()


@dataclass
class _Work:
    """The work on one tile: reads its scenes and notes what became of them."""

    composer: Composer
    frame: Frame
    view: View
    selection: Selection
    composed: Composed
    failures: list[Exception]

    def __post_init__(self) -> None:
        self._meeting = Meeting(self.view)
        self._held: list[int] = []
        self.size = 0.0
        """Bytes of a pixel of one scene; 0 before one is read."""

    def read_strip(self, group: Sequence[Scene], strip: Window, _: Window | None) -> Pixels | None:
        """Read a strip of scenes that count once, and hold nothing beside it."""
        made = self.read(group, strip)
        self._held.clear()
        if made is None:
            return None
        self.size = (made.data.nbytes + made.valid.nbytes) / (strip.width * strip.height)
        return made

    def sort_names(self, groups: Sequence[Sequence[Scene]]) -> None:
        """Name each scene once and in order, however many strips it was read for."""
        order = {_shown(scene.name): place for place, scene in enumerate(chain(*groups))}
        found = dict(zip(self.composed.read, self.composed.rules, strict=True))
        self.composed.read[:] = sorted(found, key=lambda one: order[one[0]])
        self.composed.rules[:] = [found[one] for one in self.composed.read]

    def read(self, group: Sequence[Scene], window: Window | None) -> Pixels | None:
        """Read scenes that count once: each pixel comes from the first that has it."""
        reads = [partial(self._read, scene, len(group)) for scene in group]
        if len(reads) == 1:
            made = reads[0](window)
        else:
            made = _FIRST.compose(reads if window is None else [partial(_within, read, window) for read in reads])
        if made is not None and self.selection.holds_all:
            made = Pixels(_alone(made.data), _alone(made.valid))
            self._held.append(made.data.nbytes + made.valid.nbytes)
            self.composer.check_room(sum(self._held))
        return made

    def _read(self, scene: Scene, count: int, window: Window | None) -> Pixels | None:
        check_ticket()
        try:
            signed = self.composer.readable(scene)
            pixels = self.view.read(self.composer.pool, signed, self.frame, window)
            if pixels is None:
                return None
            self._meeting.admit(scene, pixels)
            palette = self.view.palette(self.composer.pool, signed) if self.selection.keeps_values else None
        except (AbandonedError, TooLargeError, UsageError):
            raise
        except Exception as error:  # noqa: BLE001 - of GDAL, rasterio or a server, for a broken file
            self.failures.append(error)
            _skip(self.composed, scene.name, error, _reason(error))
            return None
        self.composed.palettes.add(palette)
        self.composed.read.append((_shown(scene.name), scene.taken.date().isoformat() if scene.taken else ""))
        rules = [
            self.view.rule(scene),
            f"counts once with {_others(count)} of its {self.selection.group_by}" * (count > 1),
        ]
        self.composed.rules.append("; ".join(filter(None, rules)))
        return self.view.finish(pixels)


def _within(read: Read, strip: Window, window: Window | None) -> Pixels | None:
    """Read a window that is given from the corner of a strip; None: the strip."""
    if window is None:
        return read(strip)
    return read(Window(strip.col_off + window.col_off, strip.row_off + window.row_off, window.width, window.height))


def _alone(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array that keeps no larger one in memory."""
    return array if array.base is None else array.copy()


def _others(count: int) -> str:
    return "1 other" if count == 2 else f"{count - 1} others"


def _cut(future: Future[Pixels | None]) -> Callable[[Window | None], Pixels | None]:
    """Return a window of a scene that was read whole."""

    def read(window: Window | None) -> Pixels | None:
        pixels = future.result()
        if pixels is None or window is None:
            return pixels
        place = (slice(None), *window.toslices())
        return Pixels(pixels.data[place], pixels.valid[place])

    return read


def _skip(composed: Composed, name: str, error: Exception, reason: str) -> None:
    shown = _shown(name)
    composed.skipped.setdefault(shown, reason)
    _LOGGER.warning("scene %s is left out: %s", shown, type(error).__name__)


def _reason(error: Exception) -> str:
    """Return why a scene is left out, in words that strangers may read: GDAL's may tell which files exist here."""
    if isinstance(error, (SourceError, RioTilerError)):
        return re.sub(r"\s+", " ", str(error))[:_LONGEST_REASON]
    return "it cannot be read"


def _without_secrets(error: Exception, scene: str) -> Exception:
    """Return the error to answer with; messages of GDAL lose the queries of URLs."""
    if not isinstance(error, (RasterioError, OSError)):
        return error
    text = re.sub(r"\?[^\s'\"]*", "", str(error))
    told = UnreadableSceneError(f"the scene {scene} cannot be read: {text}", hint=_what_helps(text))
    told.public = f"the scene {scene} cannot be read"
    return told


def _what_helps(text: str) -> str:
    """Return what to try, by what GDAL says of a file that it cannot open."""
    if not re.search(r"\b40[13]\b|denied|credential|forbidden|unauthorized", text, re.IGNORECASE):
        return "check the hrefs of its item"
    if re.search(r"/vsis3/|s3://|aws", text, re.IGNORECASE):
        return "for a requester-pays bucket set AWS_REQUEST_PAYER=requester, else keys or AWS_NO_SIGN_REQUEST=YES"
    return "set the token of its server with ``headers``, or in GDAL_HTTP_HEADERS"


def _shown(name: str) -> str:
    """Return the name of a scene in ASCII, without its query and its user, which may hold secrets."""
    parts = urlsplit(name)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else name
    return quote(shown, safe=_SAFE)
