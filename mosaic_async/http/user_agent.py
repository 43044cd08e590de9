"""How this package names itself to servers."""

from importlib.metadata import version

USER_AGENT = f"mosaic-async/{version('mosaic-async')}"
