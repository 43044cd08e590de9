"""An output in a bucket: what is kept of its work in `KEY.work/`, and how the object gets its name.

A part is kept as two objects: its body, named after its bytes, and a card, put last, that proves it. So any machine can
resume. The output is put together under another name in the bucket, read back, and then copied to its own. What is
under way lies in a folder of this machine. It blocks, so it is called in threads.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mosaic_async.build.job import Effort
from mosaic_async.build.proof import NotProvenError, Proof, read_record
from mosaic_async.build.work_folder import JOB, SAMPLE, SCENES, VALUES, work_path
from mosaic_async.cloud.access import Access
from mosaic_async.cloud.address import Address, address_of, is_address
from mosaic_async.cloud.concatenation import abort_uploads, concatenate
from mosaic_async.cloud.store import Found, Store, TakenError
from mosaic_async.cloud.stretches import Kept, Stretch, groups_of, total
from mosaic_async.errors import MosaicError, StitchError, UsageError, WorkFolderError
from mosaic_async.raster import whole_file
from mosaic_async.raster.assembly import OnProgress, validate
from mosaic_async.raster.scattered import Sample

_MARK = "mosaic-async"
"""The name of the metadata that tells which run has published an object."""
_PUBLICATION = "publication.json"
_NAMES = (JOB, SAMPLE, SCENES, VALUES)
"""Files of the work folder that the bucket has too."""
READ_BACK = 32
"""Parts of which blocks are read back."""
_CHUNK = 8 * 2**20


class BucketOutput:
    """One output in a bucket."""

    def __init__(self, address: Address, store: Store, scratch: Path) -> None:
        self.address = address
        self.store = store
        self.published: dict[str, Any] | None = None
        """The report of an earlier run that was killed after it had put the output in its place."""
        self._scratch = scratch
        self._proof = Proof("")
        self._shared: dict[str, bytes] = {}

    @classmethod
    def of(cls, output: str, work: Path | None) -> Self:
        """Return the output that a text names.

        Args:
            output: `s3://bucket/key.tif`.
            work: the folder for what is under way; None: one in the user's cache.

        Raises:
            UsageError: it cannot be the output, or the extra `cloud` is not installed.
            ResourceError: keys for the store were not found.
        """
        address = address_of(output)
        if Path(address.key).suffix.lower() not in (".tif", ".tiff"):
            raise UsageError(f"{address} is not the name of a GeoTIFF", hint="end the key with .tif")
        scratch = Path("~/.cache/mosaic-async").expanduser() if work is None else work.absolute()
        return cls(address, Store(address.bucket, Access.find()), scratch)

    @property
    def name(self) -> Path:
        """The last part of the key."""
        return Path(Path(self.address.key).name)

    def path_for(self, label: str) -> Path:
        """Return the path of a file that the output would be on this machine; its work lies beside it."""
        job = hashlib.sha256(f"{self.address} {self.store.access.endpoint} {label}".encode()).hexdigest()[:16]
        return self._scratch / job / Path(self.address.key).name

    def key(self, name: str) -> str:
        """Return the key of an object of the work."""
        return f"{self.address.key}.work/{name}"

    def open(self, label: str, *, resume: bool) -> None:
        """Fetch what the work folder needs to resume, from the bucket to this machine.

        Args:
            label: of the job's identity.
            resume: False deletes what earlier runs have kept in the bucket.

        Raises:
            WorkFolderError: the work in the bucket belongs to another job.
            MosaicError: the bucket cannot be read.
        """
        self._proof = Proof(label)
        folder = work_path(self.path_for(label))
        folder.mkdir(parents=True, exist_ok=True)
        abort_uploads(self.store, self.address.key)
        self._find_publication(folder)
        if not resume:
            self.remove()
            return
        for name in _NAMES:
            data = self.store.get(self.key(name))
            if data is None:
                continue
            if name == JOB and self._label_in(folder, data) not in (None, label):
                raise WorkFolderError(
                    f"{self.address}.work belongs to another job: source, area, zoom or output options differ",
                    hint="finish that job, choose another output, or drop it with ``resume=False``",
                )
            if not (folder / name).exists():
                whole_file.write(folder / name, data)
            self._shared[name] = data

    def share(self, folder: Path) -> None:
        """Put what another machine needs to resume, where it has changed.

        Args:
            folder: the work folder.
        """
        for name in _NAMES:
            with suppress(FileNotFoundError):
                data = (folder / name).read_bytes()
                if self._shared.get(name) != data:
                    self.store.put(self.key(name), data)
                    self._shared[name] = data

    def check_absent(self, *, overwrite: bool) -> None:
        """Require that the output is new or may be replaced.

        Raises:
            UsageError: it exists.
        """
        if not overwrite and self.store.find(self.address.key) is not None:
            raise UsageError(f"{self.address} exists", hint="choose another name, or set ``overwrite``")

    def publish(
        self,
        made: Path,
        stretches: Sequence[Stretch],
        samples: Sequence[Sample],
        report: dict[str, Any],
        *,
        overwrite: bool,
        on_progress: OnProgress,
    ) -> None:
        """Put the output together, read it back, and copy it to its own name.

        Args:
            made: the output, or the front of it with holes where the other stretches belong.
            stretches: its bytes, in their order.
            samples: blocks of it.
            report: of the run, as JSON types.
            overwrite: whether the output may be replaced.
            on_progress: told of the bytes that are in their place, and of all.

        Raises:
            StitchError: it is not a valid COG, or the bucket has other bytes than it should.
            UsageError: the output has appeared meanwhile and must not be replaced.
            MosaicError: the bucket cannot be written.
        """
        validate(made)
        mark, size, done = secrets.token_hex(16), total(stretches), [0]

        def on_step(nbytes: int) -> None:
            done[0] += nbytes
            on_progress(min(done[0], size), size)

        staged: list[Stretch] = []
        try:
            if any(stretch.is_kept for stretch in stretches):
                for number, group in enumerate(groups_of(stretches)):
                    key = self.key(f"made-{mark}-{number}.tif")
                    staged.append(
                        Stretch(Kept(key, concatenate(self.store, key, group, on_step=on_step)), 0, total(group))
                    )
                self._read_back(made, stretches[0], staged, samples)
            self._announce(mark, report)
            concatenate(self.store, self.address.key, staged or stretches, create=not overwrite, metadata={_MARK: mark})
        except TakenError as error:
            raise UsageError(
                f"{self.address} appeared during the run", hint="move it away, or re-run with ``overwrite``"
            ) from error
        finally:
            with suppress(MosaicError):
                self.store.delete([stretch.source.key for stretch in staged if isinstance(stretch.source, Kept)])

    def withdraw(self) -> None:
        """Delete the record of the publication: the work stays, to fill holes of the output."""
        self.store.delete([self.key(_PUBLICATION)])

    def remove(self) -> None:
        """Delete all work from the bucket, the record of the publication last."""
        abort_uploads(self.store, self.address.key)
        keys = set(self.store.under(self.key("")))
        self.store.delete(keys - {self.key(_PUBLICATION)})
        self.withdraw()
        self._shared.clear()

    def _announce(self, mark: str, report: dict[str, Any]) -> None:
        """Record which object is about to become the output, so that a kill right after that is understood."""
        self.store.put(self.key(_PUBLICATION), self._proof.seal("publication", {"mark": mark, "report": report}))

    def _find_publication(self, folder: Path) -> None:
        data = self.store.get(self.key(_PUBLICATION))
        found = self.store.find(self.address.key) if data is not None else None
        if data is None or found is None:
            return
        path = folder / _PUBLICATION
        whole_file.write(path, data)
        with suppress(NotProvenError):
            content = self._proof.unseal("publication", path)
            if found.metadata.get(_MARK) == content["mark"]:
                self.published = content["report"]
        path.unlink()

    def _label_in(self, folder: Path, data: bytes) -> str | None:
        """Return the label of a record; None if it is damaged."""
        path = folder / f"{JOB}.{secrets.token_hex(4)}{whole_file.SUFFIX}"
        try:
            path.write_bytes(data)
            return read_record(path).label
        except NotProvenError:
            return None
        finally:
            path.unlink(missing_ok=True)

    def _read_back(self, made: Path, front: Stretch, staged: Sequence[Stretch], samples: Sequence[Sample]) -> None:
        """Compare what is put together with what it should be: its size, its front, and blocks of many parts."""
        for stretch in staged:
            found: Found | None = self.store.find(_key_of(stretch))
            if found is None or found.size != stretch.length:
                raise self._differs("its size")
        first = _key_of(staged[0])
        with made.open("rb") as file:
            for start in range(0, front.length, _CHUNK):
                data = file.read(min(_CHUNK, front.length - start))
                if self.store.get_range(first, start, len(data)) != data:
                    raise self._differs("its headers")
        for sample in samples:
            if hashlib.sha256(self._bytes_at(staged, sample.start, sample.length)).digest() != sample.digest:
                raise self._differs(f"the block at byte {sample.start:,}")
        if len(staged) == 1:
            validate(Address(self.address.bucket, first).vsi, **self.store.access.for_gdal())

    def _bytes_at(self, staged: Sequence[Stretch], start: int, length: int) -> bytes:
        for stretch in staged:
            if start < stretch.length:
                return self.store.get_range(_key_of(stretch), start, length)
            start -= stretch.length
        raise self._differs("its size")

    def _differs(self, what: str) -> StitchError:
        return StitchError(
            f"the store has put {self.address} together wrongly: {what} differs", hint="the work is kept; re-run"
        )


def _key_of(stretch: Stretch) -> str:
    assert isinstance(stretch.source, Kept)
    return stretch.source.key


def bucket_of(output: str | Path, effort: Effort, *, collection: bool, has_crew: bool) -> BucketOutput | None:
    """Return the output that is an object; None for a file.

    Args:
        output: what the user passes.
        effort: its folder for what is under way; some of its options require a file.
        collection: whether the output is a folder.
        has_crew: whether other processes build its parts.

    Raises:
        UsageError: it cannot be an object, or an option requires a file.
    """
    if not is_address(str(output)):
        return None
    options = {"collection": collection, "stac": effort.stac, "shard": effort.shard is not None, "crew": has_crew}
    if used := [f"``{name}``" for name, is_set in options.items() if is_set]:
        raise UsageError(f"{' and '.join(used)} requires an output on the disk", hint=f"leave {used[0]} out")
    return BucketOutput.of(str(output), None if effort.work is None else Path(effort.work))
