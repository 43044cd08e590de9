"""Where an HTTP/1.1 answer ends in a run of bytes. It knows nothing of connections."""

from __future__ import annotations

_BODILESS = (204, 304)


def after_answer(raw: bytes) -> bytes | None:
    """Return the bytes after the first final answer; None if the answer is incomplete, or if only its end is its end.

    Raises:
        ValueError: the bytes are not HTTP.
    """
    while True:
        head, end, body = raw.partition(b"\r\n\r\n")
        if not end:
            return None
        status, fields = _head(head)
        if not 100 <= status < 200:
            break
        raw = body
    if status in _BODILESS:
        return body
    if fields.get(b"transfer-encoding", b"").endswith(b"chunked"):
        return _after_chunks(body)
    length = fields.get(b"content-length")
    return None if length is None or len(body) < int(length) else body[int(length) :]


def _head(head: bytes) -> tuple[int, dict[bytes, bytes]]:
    first, *lines = head.split(b"\r\n")
    if not first.startswith(b"HTTP/1."):
        raise ValueError("not an HTTP answer")
    fields = {}
    for line in lines:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip().lower()
    return int(first.split(None, 2)[1]), fields


def _after_chunks(body: bytes) -> bytes | None:
    while True:
        size, end, rest = body.partition(b"\r\n")
        if not end:
            return None
        length = int(size.partition(b";")[0], 16)
        if length == 0:
            break
        if rest[length : length + 2] not in (b"\r\n", b"\r", b""):
            raise ValueError("a chunk without an end")
        body = rest[length + 2 :]
        if len(rest) < length + 2:
            return None
    if rest.startswith(b"\r\n"):
        return rest[2:]
    _, end, rest = rest.partition(b"\r\n\r\n")  # trailers
    return rest if end else None
