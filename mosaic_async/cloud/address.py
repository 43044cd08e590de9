"""Names of objects: `s3://bucket/key` and its relatives. It knows nothing of servers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mosaic_async.errors import UsageError

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "azure": "az"}
_URL = re.compile(rf"({'|'.join(_SCHEMES)}):/{{1,2}}([^/]*)/?(.*)", re.IGNORECASE | re.DOTALL)
"""One slash is enough: that is what `Path` leaves of two."""
_ELSEWHERE = {
    "gs": "Google's store is not tried: write to s3://, or to a file that `gcloud storage cp` uploads",
    "az": "Azure's store is not tried: write to s3://, or to a file that `azcopy` uploads",
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


def address_of(text: str) -> Address:
    """Return the address that a text names.

    Raises:
        UsageError: it names no object, or one of a store that is not supported.
    """
    found = _URL.fullmatch(text)
    if found is None:
        raise UsageError(f"{text} does not name an object", hint="write s3://bucket/key")
    scheme = _SCHEMES[found[1].lower()]
    if scheme != "s3":
        raise UsageError(
            f"{text} is not a file on this machine, and of objects only those of S3 can be written",
            hint=_ELSEWHERE[scheme],
        )
    if not found[2] or not found[3] or found[3].endswith("/"):
        raise UsageError(f"{text} names no object", hint="write s3://bucket/key")
    return Address(found[2], found[3])
