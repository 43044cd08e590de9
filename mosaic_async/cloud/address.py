"""Names of objects: `s3://bucket/key` and its relatives. It knows nothing of servers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mosaic_async.errors import UsageError

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "azure": "az"}
_URL = re.compile(rf"({'|'.join(_SCHEMES)}):/{{1,2}}([^/]*)/?(.*)", re.IGNORECASE | re.DOTALL)
"""One slash is enough: that is what `Path` leaves of two."""
_ELSEWHERE = {
    "gs": "Google's store is not tried: use s3://, or a file that `gcloud storage cp` copies",
    "az": "Azure's store is not tried: use s3://, or a file that `azcopy` copies",
}


@dataclass(frozen=True)
class Address:
    """Where an object is."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def vsi(self) -> str:
        """The name by which GDAL opens it."""
        return f"/vsis3/{self.bucket}/{self.key}"

    def beside(self, suffix: str) -> Address:
        """Return the address of another object whose key begins with this one's."""
        return Address(self.bucket, self.key + suffix)


def is_address(text: str) -> bool:
    """Return whether a text names an object of any store."""
    return _URL.match(text) is not None


def place_of(text: str) -> Address:
    """Return the address of an object or, with an empty key or one that ends with a slash, of all under it.

    Raises:
        UsageError: the text names no bucket, or one of a store that is not supported.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise UsageError(f"{text} does not name an object", hint="write s3://bucket/key")
    scheme = _SCHEMES[found[1].lower()]
    if scheme != "s3":
        raise UsageError(
            f"{text} is not a file on this machine, and of object stores only S3 is supported",
            hint=_ELSEWHERE[scheme],
        )
    if not found[2]:
        raise UsageError(f"{text} names no object in a bucket", hint="write s3://bucket/key")
    return Address(found[2], found[3])


def address_of(text: str) -> Address:
    """Return the address that a text names.

    Raises:
        UsageError: it names no object, or one of a store that is not supported.
    """
    place = place_of(text)
    if not place.key or place.key.endswith("/"):
        raise UsageError(f"{text} names no object", hint="write s3://bucket/key")
    return place
