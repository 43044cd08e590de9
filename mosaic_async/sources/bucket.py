"""Documents and names of objects in a bucket that is a source. It knows nothing of what the documents mean."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mosaic_async.cloud.access import usual_access
from mosaic_async.cloud.address import place_of
from mosaic_async.cloud.store import Store
from mosaic_async.errors import SourceError
from mosaic_async.safety.safe_json import read


def read_object(name: str) -> Any:
    """Read the JSON of an object, gzipped if its name ends so.

    Raises:
        SourceError: it is not found, or is not JSON.
        MosaicError: the store refuses, or is out of reach.
    """
    place = place_of(name)
    data = _store(place.bucket).get(place.key)
    if data is None:
        raise SourceError(f"{name} not found", hint="check the name, and AWS_ENDPOINT_URL")
    with TemporaryDirectory(prefix="mosaic-async-") as folder:
        file = Path(folder) / f"object{Path(place.key).suffix}"
        file.write_bytes(data)
        try:
            return read(file)
        except ValueError as error:
            raise SourceError(f"{name} is not JSON: {error}") from error


def objects_at(name: str) -> list[str]:
    """Return the object of a name alone, or the names of all objects under it.

    Raises:
        SourceError: neither exists.
        MosaicError: the store refuses, or is out of reach.
    """
    place = place_of(name)
    store = _store(place.bucket)
    if place.key and not place.key.endswith("/") and store.find(place.key) is not None:
        return [str(place)]
    prefix = place.key.rstrip("/") + "/" if place.key else ""
    keys = [key for key in store.under(prefix) if not key.endswith("/")]
    if not keys:
        raise SourceError(f"{name} not found", hint="check the name of the object or prefix, and AWS_ENDPOINT_URL")
    return [f"s3://{place.bucket}/{key}" for key in keys]


def _store(bucket: str) -> Store:
    return Store(bucket, usual_access())
