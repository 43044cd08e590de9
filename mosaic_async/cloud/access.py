"""How a store is reached, read once from where AWS's tools look, and told to GDAL in its own words.

The variables and profiles are those of botocore (`AWS_ENDPOINT_URL`, `AWS_REGION`, keys, `AWS_PROFILE`), and those that
GDAL and obstore add for the same purpose. botocore and GDAL then see the same server and the same keys. Keys are
removed from every text that leaves the program.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mosaic_async.cloud.extras import imported
from mosaic_async.errors import ResourceError
from mosaic_async.redaction import learn

_ATTEMPTS = 5
_DEFAULT_REGION = "us-east-1"
_YES = frozenset({"1", "on", "true", "yes"})


@dataclass(frozen=True)
class Access:
    """A way into a store."""

    client: Any
    """Of botocore."""
    credentials: Any
    """Of botocore, which renews them; None for requests without a signature."""
    endpoint: str | None
    """URL of the server; None for AWS itself."""
    region: str

    @classmethod
    def find(cls, environ: Mapping[str, str] | None = None) -> Access:
        """Look where AWS's tools look.

        Args:
            environ: variables; None for those of the process.

        Raises:
            UsageError: the extra `cloud` is not installed.
            ResourceError: the profile does not exist, or no keys are found.
        """
        environ = os.environ if environ is None else environ
        is_anonymous = any(_is_set(environ, name) for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"))
        session = imported("botocore.session").get_session()
        try:
            credentials = None if is_anonymous else session.get_credentials()
            if credentials is None and not is_anonymous:
                raise ResourceError(
                    "keys for the object store were not found",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
                    "or AWS_NO_SIGN_REQUEST=YES for a public bucket",
                )
            client = _client(session, environ, is_anonymous=is_anonymous)
        except imported("botocore.exceptions").BotoCoreError as error:
            raise ResourceError(f"the settings of the object store cannot be used: {error}") from error
        endpoint = client.meta.endpoint_url
        is_aws = str(urlsplit(endpoint).hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
        access = cls(client, credentials, None if is_aws else endpoint, client.meta.region_name)
        access.keys()
        return access

    def keys(self) -> dict[str, str]:
        """Return the keys as they are now, by their names of environment variables."""
        if self.credentials is None:
            return {}
        frozen = self.credentials.get_frozen_credentials()
        learn(value for value in (frozen.access_key, frozen.secret_key, frozen.token) if value)
        keys = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
        return {**keys, **({"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {})}

    def for_gdal(self) -> dict[str, str]:
        """Return GDAL's settings."""
        settings = {"AWS_REGION": self.region, **self.keys()}
        if self.credentials is None:
            settings["AWS_NO_SIGN_REQUEST"] = "YES"
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            settings["AWS_S3_ENDPOINT"] = parts.netloc + parts.path.rstrip("/")
            settings["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
            settings["AWS_VIRTUAL_HOSTING"] = "FALSE"
        return settings


def _client(session: Any, environ: Mapping[str, str], *, is_anonymous: bool) -> Any:
    endpoint = _endpoint(environ)
    region = session.get_config_variable("region") or environ.get("AWS_REGION") or _DEFAULT_REGION
    is_custom = endpoint or any(name.startswith("AWS_ENDPOINT_URL") for name in environ)
    config = imported("botocore.config").Config(
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path"} if is_custom else {},
        **({"signature_version": imported("botocore").UNSIGNED} if is_anonymous else {}),
    )
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


def _endpoint(environ: Mapping[str, str]) -> str | None:
    """Return the server that only the variables of GDAL or obstore name; botocore knows its own ones."""
    if any(environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")):
        return None
    if host := environ.get("AWS_S3_ENDPOINT"):
        scheme = "https" if environ.get("AWS_HTTPS", "YES").lower() in _YES else "http"
        return host if "://" in host else f"{scheme}://{host}"
    return environ.get("AWS_ENDPOINT")


def _is_set(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() in _YES
