"""Objects that are put together inside the bucket: the store copies the large stretches, and only the rest is sent.

An object appears when its upload is completed, as a whole. An upload that fails is aborted; one that was killed is
found and aborted by the next run. It knows nothing of what the bytes are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from mosaic_async.cloud.store import Store, TakenError
from mosaic_async.cloud.stretches import LEAST, Step, Stretch, is_copied, steps_of, total
from mosaic_async.errors import MosaicError, ResourceError

_AT_ONCE = 8
"""Steps under way."""

OnStep = Callable[[int], None]
"""Called with the bytes of each step that is done."""


def concatenate(
    store: Store,
    key: str,
    stretches: Sequence[Stretch],
    *,
    create: bool = False,
    metadata: Mapping[str, str] | None = None,
    on_step: OnStep = lambda _: None,
) -> str:
    """Put an object together, and return its ETag.

    Args:
        store: the bucket.
        key: of the object.
        stretches: its bytes, in their order.
        create: whether it must be new.
        metadata: kept with it.
        on_step: told of what is done.

    Raises:
        TakenError: `create` is set, and the object exists.
        MosaicError: as for `Store.call`, or a file or an object is not what it was.
    """
    steps = steps_of(stretches)
    if total(stretches) < LEAST:
        data = b"".join(_read(store, step) for step in steps)
        e_tag = store.put(key, data, create=create, metadata=metadata)
        on_step(len(data))
        return e_tag
    if create and store.find(key) is not None:  # a store may not know the condition
        raise TakenError(f"s3://{store.bucket}/{key} exists")
    upload = store.call("create_multipart_upload", Key=key, Metadata=dict(metadata or {}))["UploadId"]
    try:
        parts = _sent(store, key, upload, steps, on_step)
        condition = {"IfNoneMatch": "*"} if create else {}
        answer = store.call(
            "complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
        )
    except BaseException:
        with suppress(MosaicError, KeyError):  # what went wrong first counts
            store.call("abort_multipart_upload", Key=key, UploadId=upload)
        raise
    return str(answer["ETag"])


def abort_uploads(store: Store, prefix: str) -> int:
    """Abort all uploads of objects whose keys begin with a prefix, and return their number."""
    uploads = store.uploads(prefix)
    for key, upload in uploads:
        with suppress(KeyError):  # it has just ended
            store.call("abort_multipart_upload", Key=key, UploadId=upload)
    return len(uploads)


def _sent(store: Store, key: str, upload: str, steps: Sequence[Step], on_step: OnStep) -> list[dict[str, Any]]:
    """Do all steps, several at once, and return the parts of the upload."""

    def do(number: int, step: Step) -> dict[str, Any]:
        arguments = {"Key": key, "UploadId": upload, "PartNumber": number}
        part = _copied(store, step[0], arguments) if is_copied(step) else _uploaded(store, step, arguments)
        on_step(total(step))
        return {"PartNumber": number, "ETag": part}

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mosaic-bucket") as threads:
        steps_under_way = [threads.submit(do, number, step) for number, step in enumerate(steps, 1)]
        try:
            return [step.result() for step in steps_under_way]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _copied(store: Store, stretch: Stretch, arguments: Mapping[str, Any]) -> str:
    source, end = stretch.source, stretch.start + stretch.length - 1
    assert not isinstance(source, Path)
    try:
        answer = store.call(
            "upload_part_copy",
            **arguments,
            CopySource={"Bucket": store.bucket, "Key": source.key},
            CopySourceRange=f"bytes={stretch.start}-{end}",
            CopySourceIfMatch=source.e_tag,
        )
    except (KeyError, TakenError) as error:
        raise _changed(store, source.key) from error
    return str(answer["CopyPartResult"]["ETag"])


def _uploaded(store: Store, step: Step, arguments: Mapping[str, Any]) -> str:
    return str(store.call("upload_part", **arguments, Body=_read(store, step))["ETag"])


def _read(store: Store, step: Step) -> bytes:
    return b"".join(_bytes_of(store, stretch) for stretch in step)


def _bytes_of(store: Store, stretch: Stretch) -> bytes:
    source = stretch.source
    if not isinstance(source, Path):
        return store.get_range(source.key, stretch.start, stretch.length)
    with source.open("rb") as file:
        file.seek(stretch.start)
        data = file.read(stretch.length)
    if len(data) != stretch.length:
        raise ResourceError(f"{source} ends too early", hint="re-run the same command")
    return data


def _changed(store: Store, key: str) -> MosaicError:
    return ResourceError(
        f"s3://{store.bucket}/{key} is gone, or is not what was put there",
        hint="re-run the same command: what is missing is built again",
    )
