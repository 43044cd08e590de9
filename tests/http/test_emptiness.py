"""What empty means is data: which answers have no data, for sure or as a doubt, and how users write rules."""

from __future__ import annotations

import hashlib

import pytest
from multidict import CIMultiDict

from mosaic_async.errors import UsageError
from mosaic_async.http.emptiness import EmptyRules, canonical, is_doubt, of_document, spelled

OUTSIDE = {
    "GeoWebCache": b'<ExceptionReport><Exception exceptionCode="TileOutOfRange" locator="TILECOL">'
    b"<ExceptionText>Column 3 is out of range, min: 0 max:1</ExceptionText></Exception></ExceptionReport>",
    "OnEarth": b'<Exception exceptionCode="TILEOUTOFRANGE" locator="TILEROW"><ExceptionText>TILEROW is out of range, '
    b"maximum value is 3</ExceptionText></Exception>",
    "rio-tiler": b'{"detail": "Tile(x=5, y=3, z=2) is outside bounds"}',
    "its class": b"TileOutsideBounds: Tile 2/5/3 is outside image bounds",
    "OGC API": b'{"title": "Bad Request", "detail": "The requested tile is outside of the tile matrix set limits."}',
    "ldproxy": b"Row 17 is outside the limits of the tile matrix",
    "plain": b"tile out of bounds",
}
OTHER_400 = {
    "an expression": b'{"detail": "disallowed expression: Tuple"}',
    "a value": b'{"detail": "rescale is out of range"}',
    "a format": b'<Exception exceptionCode="InvalidParameterValue"><ExceptionText>Unknown format</ExceptionText>',
    "nothing": b"",
}
DENIED = {
    "S3": b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message><RequestId>1</RequestId></Error>",
    "GCS": b"<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>Anonymous</Details></Error>",
    "Spaces": b"<Error><Code>AccessDenied</Code><RequestId>tx01</RequestId></Error>",
}
OTHER_403 = {
    "a signed URL of the past": b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    "a token of the past": b"<Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>",
    "a wrong signature": b"<Error><Code>SignatureDoesNotMatch</Code><Message>Access Denied</Message></Error>",
    "a gateway": b'{"message": "Forbidden"}',
    "a firewall": b"<html><title>403 Forbidden</title>Access Denied</html>",
}


@pytest.mark.parametrize("body", OUTSIDE.values(), ids=OUTSIDE)
def test_a_400_that_calls_the_tile_outside_of_the_matrix_has_no_data(body):
    assert of_document(400, body) == "outside"
    assert of_document(422, body) is None


@pytest.mark.parametrize("body", DENIED.values(), ids=DENIED)
def test_a_bucket_that_denies_a_key_has_no_data_there(body):
    assert of_document(403, body) == "denied"
    assert of_document(401, body) is None


@pytest.mark.parametrize("body", [*OTHER_400.values(), *OTHER_403.values()], ids=[*OTHER_400, *OTHER_403])
def test_what_is_wrong_with_the_request_is_no_empty_tile(body):
    assert (of_document(400, body), of_document(403, body)) == (None, None)


def test_the_head_of_an_answer_tells_what_is_empty():
    none, rules = EmptyRules(), EmptyRules.of(["410", "403", "header:x-blank=yes", "sha256:" + "0" * 64])
    blank, bing = CIMultiDict({"X-Blank": " YES "}), CIMultiDict({"X-VE-Tile-Info": "no-tile"})
    assert [none.of_head(status, {}) for status in (200, 204, 404, 410, 403)] == [
        None,
        "no content",
        "not found",
        None,
        None,
    ]
    assert [rules.of_head(status, {}) for status in (200, 204, 404, 410, 403)] == [
        None,
        "no content",
        "not found",
        "rule",
        "rule",
    ]
    assert [none.of_head(200, bing), none.of_head(200, blank), rules.of_head(200, blank)] == ["rule", None, "rule"]
    assert rules.of_head(500, blank) is None


def test_only_what_a_server_says_of_a_tile_alone_is_sure():
    sure = [("no content", 204), ("rule", 200)]
    doubts = [("rule", 403), ("not found", 404), ("no body", 200), ("outside", 400), ("denied", 403)]
    assert [is_doubt(*each) for each in sure + doubts] == [False] * 2 + [True] * 5


def test_rules_have_one_spelling(tmp_path):
    body = b"map data not yet available"
    (tmp_path / "sample.png").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    assert canonical(" 0403 ") == "403"
    assert canonical("Header:X-Tile-Info = No-Tile") == "header:x-tile-info=no-tile"
    assert canonical("SHA256:" + digest.upper()) == canonical(str(tmp_path / "sample.png")) == f"sha256:{digest}"
    assert EmptyRules.of([f"sha256:{digest}"]).of_body(body) == "rule"


@pytest.mark.parametrize(
    "when", ["", "200", "401", "429", "503", "99", "header:", "header:x", "header:=1", "sha256:12", "missing.png", "-1"]
)
def test_what_is_not_a_rule_is_an_error_that_names_what_is(when):
    with pytest.raises(UsageError):
        canonical(when)


def test_an_empty_sample_is_refused(tmp_path):
    (tmp_path / "sample.png").touch()
    with pytest.raises(UsageError, match=r"sample\.png is empty"):
        canonical(str(tmp_path / "sample.png"))


def test_a_single_text_is_not_a_list_of_rules():
    assert spelled(["410", "0403", "403"]) == ("403", "410")
    with pytest.raises(UsageError, match="list"):
        spelled("403")
