"""Which format of tiles is requested where a server offers several. It knows nothing of servers."""

from __future__ import annotations

from collections.abc import Sequence

_PREFERRED = ("image/png", "image/tiff", "image/webp", "image/jpeg", "image/jpg")
"""Without loss before with loss; a picture before values, which a server may not have meant for a map."""


def preferred(formats: Sequence[str]) -> str:
    """Return the media type to request; the first one where none is known."""
    plain = {name.partition(";")[0].strip().lower(): name for name in reversed(formats)}
    return next((plain[name] for name in _PREFERRED if name in plain), formats[0] if formats else _PREFERRED[0])
