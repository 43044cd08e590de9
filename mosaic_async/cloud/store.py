"""The objects of one bucket, each of which is there as a whole or not at all.

It blocks, so it is called in threads. No exception of botocore leaves this room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mosaic_async.cloud.access import Access
from mosaic_async.cloud.extras import imported
from mosaic_async.errors import MosaicError, ResourceError, UsageError
from mosaic_async.safety.redaction import one_line

_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
_MISSING = frozenset({"404", "NoSuchKey"})
_TAKEN = frozenset({"409", "412", "ConditionalRequestConflict", "PreconditionFailed"})
_BATCH = 1000
"""Keys that one request deletes."""
_WORDS = 200


class TakenError(MosaicError):
    """An object of this name exists already, or has changed meanwhile."""


@dataclass(frozen=True)
class Found:
    """What a store says of an object."""

    size: int
    """Bytes."""
    e_tag: str
    metadata: Mapping[str, str] = field(default_factory=dict)


class Store:
    """One bucket."""

    def __init__(self, bucket: str, access: Access) -> None:
        self.bucket = bucket
        self.access = access

    def call(self, operation: str, **arguments: Any) -> Any:
        """Call an operation of S3 on the bucket, by botocore's name for it.

        Raises:
            KeyError: the object does not exist.
            TakenError: it exists although it must not, or it has changed.
            UsageError: the bucket does not exist.
            ResourceError: the store refuses, is out of reach, or is in trouble.
        """
        return self._translated(getattr(self.access.client, operation), Bucket=self.bucket, **arguments)

    def put(
        self, key: str, data: bytes | Path, *, create: bool = False, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Put an object, and return its ETag.

        Args:
            key: its name.
            data: its bytes, or the file that has them.
            create: whether it must be new.
            metadata: kept with it.

        Raises:
            TakenError: `create` is set, and the object exists.
            MosaicError: as for `call`.
        """
        condition = {"IfNoneMatch": "*"} if create else {}
        body = data if isinstance(data, bytes) else data.open("rb")
        try:
            answer = self.call("put_object", Key=key, Body=body, Metadata=dict(metadata or {}), **condition)
        finally:
            if not isinstance(body, bytes):
                body.close()
        return str(answer["ETag"])

    def find(self, key: str) -> Found | None:
        """Return what the store says of an object; None if it does not exist."""
        try:
            answer = self.call("head_object", Key=key)
        except KeyError:
            return None
        return Found(answer["ContentLength"], answer["ETag"], answer["Metadata"])

    def get(self, key: str) -> bytes | None:
        """Return the bytes of an object; None if it does not exist."""
        try:
            return self._body(Key=key)
        except KeyError:
            return None

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes of an object.

        Raises:
            ResourceError: it does not exist, or ends too early.
        """
        if not length:
            return b""
        try:
            data = self._body(Key=key, Range=f"bytes={start}-{start + length - 1}")
        except KeyError:
            data = b""
        if len(data) != length:
            raise ResourceError(f"s3://{self.bucket}/{key} ends too early", hint="re-run the same command")
        return data

    def under(self, prefix: str) -> dict[str, Found]:
        """Return all objects whose keys begin with a prefix, by key."""
        found: dict[str, Found] = {}
        for page in self._pages("list_objects_v2", Prefix=prefix):
            found |= {entry["Key"]: Found(entry["Size"], entry["ETag"]) for entry in page.get("Contents", ())}
        return found

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects; those that do not exist are passed over."""
        names = sorted(keys)
        for start in range(0, len(names), _BATCH):
            batch = [{"Key": key} for key in names[start : start + _BATCH]]
            answer = self.call("delete_objects", Delete={"Objects": batch, "Quiet": True})
            if errors := answer.get("Errors"):
                raise ResourceError(f"s3://{self.bucket}/{errors[0]['Key']} cannot be deleted: {errors[0]['Code']}")

    def uploads(self, prefix: str) -> list[tuple[str, str]]:
        """Return key and id of each upload that is neither completed nor aborted."""
        pages = self._pages("list_multipart_uploads", Prefix=prefix)
        return [(entry["Key"], entry["UploadId"]) for page in pages for entry in page.get("Uploads", ())]

    def _body(self, **arguments: Any) -> bytes:
        def read(**given: Any) -> bytes:
            return bytes(self.access.client.get_object(**given)["Body"].read())

        return bytes(self._translated(read, Bucket=self.bucket, **arguments))

    def _pages(self, operation: str, **arguments: Any) -> Iterator[Any]:
        def pages(**given: Any) -> list[Any]:
            return list(self.access.client.get_paginator(operation).paginate(**given))

        yield from self._translated(pages, Bucket=self.bucket, **arguments)

    def _translated(self, function: Callable[..., Any], **arguments: Any) -> Any:
        with _translating(f"s3://{arguments['Bucket']}", arguments.get("Key", "")):
            return function(**arguments)


@contextmanager
def _translating(bucket: str, key: str) -> Iterator[None]:
    """Translate what botocore raises."""
    errors = imported("botocore.exceptions")
    name = f"{bucket}/{key}" if key else bucket
    try:
        yield
    except errors.ClientError as error:
        raise _translation(error.response.get("Error", {}), name, bucket, key) from error
    except errors.BotoCoreError as error:
        raise ResourceError(
            f"{name} is out of reach: {one_line(str(error), _WORDS)}", hint="re-run the same command to resume"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{name} is out of reach: {one_line(str(error), _WORDS)}", hint="re-run the same command to resume"
        ) from error


def _translation(answer: Mapping[str, str], name: str, bucket: str, key: str) -> Exception:
    code, words = answer.get("Code", ""), one_line(answer.get("Message", ""), _WORDS)
    if code == "NoSuchBucket" or (code in _MISSING and not key):
        return UsageError(f"bucket {bucket} not found", hint="create it first, or check the name and AWS_ENDPOINT_URL")
    if code in _MISSING:
        return KeyError(key)
    if code in _TAKEN:
        return TakenError(f"{name} exists, or is changing")
    if code in _DENIED:
        return ResourceError(
            f"{name} is denied: {code} {words}".rstrip(),
            hint="check the keys: to read, they need s3:GetObject and s3:ListBucket, and to write, s3:PutObject, "
            "s3:DeleteObject and s3:AbortMultipartUpload too; if the requester pays, set AWS_REQUEST_PAYER=requester",
        )
    return ResourceError(f"{name}: the store answers {code} {words}".rstrip(), hint="re-run the same command to resume")
