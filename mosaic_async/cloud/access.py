"""How a store is reached, read once from where AWS's tools look, and told to GDAL in its own words.

The variables and profiles are those of botocore (`AWS_ENDPOINT_URL`, `AWS_REGION`, keys, `AWS_PROFILE`), and those that
GDAL and obstore add for the same purpose. botocore and GDAL then see the same server and the same keys. Keys are
removed from every text that leaves the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from mosaic_async.cloud.extras import imported
from mosaic_async.errors import MosaicError, ResourceError
from mosaic_async.safety.redaction import learn

_ATTEMPTS = 5
_DEFAULT_REGION = "us-east-1"
_VARIABLES = {
    "gdal_endpoint": (None, "AWS_S3_ENDPOINT", None, None),
    "gdal_https": (None, "AWS_HTTPS", "YES", None),
    "gdal_unsigned": (None, "AWS_NO_SIGN_REQUEST", "", None),
    "known_endpoint": (None, ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"], None, None),
    "other_endpoint": (None, "AWS_ENDPOINT", None, None),
    "other_region": (None, "AWS_REGION", None, None),
    "other_unsigned": (None, "AWS_SKIP_SIGNATURE", "", None),
    "payer": (None, "AWS_REQUEST_PAYER", None, None),
}
"""Variables that botocore reads for us beside its own ones: field in a profile, variable, default, conversion."""
_YES = frozenset({"1", "on", "true", "yes"})
_UNKNOWN_TO_GDAL = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_SKIP_SIGNATURE")
_RENEWED_BY_GDAL = frozenset({"assume-role", "assume-role-with-web-identity", "container-role", "iam-role"})
"""Where botocore has keys from that last an hour, and GDAL finds and renews them itself."""


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
    def find(cls) -> Access:
        """Look where AWS's tools look.

        Raises:
            UsageError: the extra `cloud` is not installed.
            ResourceError: the profile does not exist, or no keys are found.
        """
        session = imported("botocore.session").Session(session_vars=_VARIABLES)
        try:
            credentials = None if _is_anonymous(session) else session.get_credentials()
            if credentials is None and not _is_anonymous(session):
                raise ResourceError(
                    "keys for the object store were not found",
                    hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, "
                    "or AWS_NO_SIGN_REQUEST=YES for a public bucket",
                )
            client = _client(session)
        except imported("botocore.exceptions").BotoCoreError as error:
            raise ResourceError(f"the settings of the object store cannot be used: {error}") from error
        access = cls(client, credentials, _own_endpoint(client), client.meta.region_name)
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
        is_renewed = getattr(self.credentials, "method", None) in _RENEWED_BY_GDAL
        settings = {"AWS_REGION": self.region, **({} if is_renewed else self.keys())}
        if self.credentials is None:
            settings["AWS_NO_SIGN_REQUEST"] = "YES"
        if self.endpoint:
            parts = urlsplit(self.endpoint)
            settings["AWS_S3_ENDPOINT"] = parts.netloc + parts.path.rstrip("/")
            settings["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
            settings["AWS_VIRTUAL_HOSTING"] = "FALSE"
        return settings


@cache
def usual_access() -> Access:
    """Return the way into the store that `Access.find` finds when it is first used in a process."""
    return Access.find()


def settings_for_gdal(environ: Mapping[str, str], *, is_needed: bool) -> dict[str, str]:
    """Return GDAL's settings for what the environment says in words of other programs.

    Args:
        environ: the environment.
        is_needed: whether a store is certainly read; otherwise an environment that GDAL understands is left as it is.

    Raises:
        MosaicError: a store is read, and no way into it is found.
    """
    if is_needed:
        return Access.find().for_gdal()
    if any(environ.get(name) for name in _UNKNOWN_TO_GDAL):
        with suppress(MosaicError):
            return Access.find().for_gdal()
    return {}


def _client(session: Any) -> Any:
    """Return a client; a server that is not AWS's rarely has a host name per bucket."""
    client = _client_of(session)
    return client if _own_endpoint(client) is None else _client_of(session, s3={"addressing_style": "path"})


def _client_of(session: Any, **settings: Any) -> Any:
    unsigned = {"signature_version": imported("botocore").UNSIGNED} if _is_anonymous(session) else {}
    retries = {"mode": "standard", "total_max_attempts": _ATTEMPTS}
    client = session.create_client(
        "s3",
        region_name=session.get_config_variable("other_region")
        or session.get_config_variable("region")
        or _DEFAULT_REGION,
        endpoint_url=_endpoint(session),
        config=imported("botocore.config").Config(retries=retries, **unsigned, **settings),
    )
    if payer := session.get_config_variable("payer"):
        client.meta.events.register("before-call.s3", lambda params, **_: _name_payer(params, payer))
    return client


def _name_payer(params: dict[str, Any], payer: str) -> None:
    params["headers"]["x-amz-request-payer"] = payer


def _own_endpoint(client: Any) -> str | None:
    """Return the URL of a client's server; None for AWS."""
    endpoint = str(client.meta.endpoint_url)
    is_aws = str(urlsplit(endpoint).hostname).endswith((".amazonaws.com", ".amazonaws.com.cn"))
    return None if is_aws else endpoint


def _endpoint(session: Any) -> str | None:
    """Return the server that only the variables of GDAL or obstore name; botocore knows its own ones."""
    read = session.get_config_variable
    if read("known_endpoint"):
        return None
    if not (host := read("gdal_endpoint")):
        return read("other_endpoint") or None
    scheme = "https" if read("gdal_https").lower() in _YES else "http"
    return host if "://" in host else f"{scheme}://{host}"


def _is_anonymous(session: Any) -> bool:
    return any(session.get_config_variable(name).lower() in _YES for name in ("gdal_unsigned", "other_unsigned"))
