"""No secret leaves, however a server or a library spells it, and whatever text it stands in."""

from __future__ import annotations

import html
import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mosaic_async.cli.main import print_unexpected
from mosaic_async.errors import SourceError, TileError
from mosaic_async.http.outcome import Outcome
from mosaic_async.http.request import AttemptError
from mosaic_async.http.server_words import words_in
from mosaic_async.safety import redaction
from mosaic_async.safety.redaction import learn, learn_request, one_line, scrub, secrets_of

SPELLINGS = {
    "raw": str,
    "quoted": quote,
    "quoted wholly": lambda secret: quote(secret, safe=""),
    "quoted twice": lambda secret: quote(quote(secret, safe="")),
    "quoted thrice": lambda secret: quote(quote(quote(secret, safe=""))),
    "quoted in lower case": lambda secret: quote(secret, safe="").lower(),
    "quoted each letter": lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    "a form": quote_plus,
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "base64 of a user and it": lambda secret: b64encode(f"me:{secret}".encode()).decode(),
    "base64 in other text": lambda secret: b64encode(f"key={secret}; more".encode()).decode(),
    "base64url without padding": lambda secret: urlsafe_b64encode(f"u:{secret}".encode()).decode().rstrip("="),
    "base64 in a URL": lambda secret: quote(b64encode(secret.encode()).decode(), safe=""),
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON as UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[3:-3],
    "JSON each letter": lambda secret: "".join(
        f"\\u{unit:04x}" for unit in memoryview(secret.encode("utf-16-le")).cast("H")
    ),
    "HTML": html.escape,
    "HTML numbers": lambda secret: "".join(f"&#{ord(letter)};" for letter in secret),
    "HTML hex": lambda secret: "".join(f"&#x{ord(letter):x};" for letter in secret),
    "HTML twice": lambda secret: html.escape(html.escape(secret)),
    "Python": lambda secret: repr(secret)[1:-1],
    "hex": lambda secret: secret.encode().hex(),
    "upper case": lambda secret: "".join(letter.upper() if letter.isascii() else letter for letter in secret),
}
TEXTS = ("{}", "the key {} is unknown", '{{"detail": "no {}!"}}', "https://h/{}/1/2/3", "<p>{}</p>", "x{}y{}")
CHANNELS = {
    "scrub": scrub,
    "one line": lambda text: one_line(text, 500),
    "an error": lambda text: str(SourceError(text, hint=text)),
    "an error's message": lambda text: TileError(text).message,
    "a failed attempt": lambda text: AttemptError(text, Outcome.FAIL).reason,
}
secrets = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_characters="*{}", categories=("L", "N", "P", "S")),
    min_size=6,
    max_size=16,
)


def stripped(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())


@pytest.mark.quick(8)
@pytest.mark.parametrize("spelling", SPELLINGS)
@settings(max_examples=12)
@given(secret=secrets, text=st.sampled_from(TEXTS), channel=st.sampled_from(sorted(CHANNELS)))
@example(secret="a/b+c=d&e", text="{}", channel="scrub")
@example(secret='quo"te\\s', text="{}", channel="scrub")
@example(secret="über%41geheim", text="{}", channel="one line")
def test_a_known_secret_leaves_in_no_spelling(spelling, secret, text, channel):
    redaction._known.clear()
    learn([secret])
    spelled = SPELLINGS[spelling](secret)
    shown = CHANNELS[channel](text.format(*[spelled] * 2))
    assert spelled not in shown
    assert secret not in shown
    if "base64" not in spelling:  # whose neighbours go as well
        assert "***" in shown


@settings(max_examples=20)
@given(secret=secrets, cut=st.integers(1, 40))
def test_a_text_that_is_cut_shows_no_begin_of_a_secret(secret, cut):
    redaction._known.clear()
    learn([secret])
    assert secret[:5] not in one_line("x" * (4096 - cut) + secret + "y" * 500, 9999)
    assert secret[:5] not in one_line(secret * 2000, 200)


@pytest.mark.parametrize(
    ("url", "headers", "expected"),
    [
        ("https://h/{z}?api_key=abc%2Fdef", {}, {"abc%2Fdef", "abc/def"}),
        ("https://h/?sig=ab+cd%2Bef", {}, {"ab+cd%2Bef", "ab+cd+ef", "ab cd+ef"}),
        ("https://h/?url=https%3A%2F%2Fs%2Fx.tif%3Fsig%3Dabcdef", {}, {"abcdef"}),
        ("https://me:pass@h/", {}, {"me:pass", "pass"}),
        ("https://stripekey:@h/", {}, {"stripekey:", "stripekey"}),
        ("https://h/?color=abcdef&bands=123456", {"Accept": "image/tiff", "User-Agent": "browser/1"}, set()),
        ("", {"Authorization": "Bearer abcdef"}, {"Bearer abcdef", "abcdef", "Bearer"}),
        ("", {"Authorization": "Basic bWU6cGFzcw=="}, {"Basic bWU6cGFzcw==", "bWU6cGFzcw==", "me:pass", "pass"}),
        ("", {"Cookie": "session=abcdef; a=b"}, {"session=abcdef; a=b", "session=abcdef", "abcdef"}),
        ("", {"Authorization": "Basic no-base64!"}, {"Basic no-base64!", "no-base64!"}),
    ],
)
def test_the_secrets_of_a_request_are_found(url, headers, expected):
    assert set(secrets_of(url, headers)) == expected


def test_a_long_token_is_removed_with_its_end():
    token = "eyJ" + "abcDEF123_-" * 300
    learn_request("", {"Authorization": f"Bearer {token}"})
    assert scrub(f"token {token} is bad") == "token *** is bad"
    assert scrub(f"token {token}&next=1 is bad") == "token ***&next=1 is bad"


def test_a_secret_parameter_ends_where_the_url_ends():
    assert scrub("no answer from https://h/?token=abc: reset") == "no answer from https://h/?token=*** reset"
    assert scrub('{"url": "https://h/?token=abc", "status": 1}') == '{"url": "https://h/?token=***", "status": 1}'


@pytest.mark.parametrize("kept", [pytest.param(redaction._KEPT, marks=pytest.mark.slow), 100])
def test_old_secrets_are_forgotten_when_there_are_too_many(monkeypatch, kept):
    monkeypatch.setattr(redaction, "_KEPT", kept)
    learn(f"secret-{number:04}" for number in range(kept + 100))
    assert scrub(f"secret-0001 secret-{kept + 99:04}") == "secret-0001 ***"


HOSTILE = ("%25" * 20_000, "\\" * 60_000, "A" * 60_000, "//" + ":" * 60_000, "&amp;" * 12_000, "?" * 60_000)


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:3] for text in HOSTILE])
def test_hostile_texts_take_no_time(text):
    learn(["some secret text", "abcdef"])
    assert len(one_line(text, 200)) <= 200


INVALID = b"""{"detail": [
    {"loc": ["query", "rescale"], "msg": "not a number"},
    {"loc": ["query", "bidx"], "msg": "no"}
]}"""
WMS = b"""<?xml version="1.0"?><ServiceExceptionReport><ServiceException code="LayerNotDefined">
no layer "a&amp;b"</ServiceException></ServiceExceptionReport>"""
OWS = b"""<ows:ExceptionReport><ows:Exception exceptionCode="TileOutOfRange">
<ows:ExceptionText>row 9</ows:ExceptionText></ows:Exception></ows:ExceptionReport>"""
S3 = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b'{"detail": "no such band"}', "application/json", "no such band"),
        (b'{"message": "Forbidden"}', "application/json", "Forbidden"),
        (b'{"errorMessage": "Task timed out"}', "text/plain", "Task timed out"),
        (b'{"code": "NotFound", "description": "no such collection"}', "application/json", "no such collection"),
        (b'{"error": {"code": 400, "message": "Invalid URL"}}', "application/json", "Invalid URL"),
        (b'{"error": "invalid_client", "error_description": "unknown"}', "application/json", "unknown"),
        (INVALID, "application/json", "query.rescale: not a number; query.bidx: no"),
        (b'{"errors": [{"message": "one"}, {"message": "two"}]}', "application/json", "one; two"),
        (b'{"title": "Bad Request", "detail": "minzoom"}', "application/problem+json", "minzoom"),
        (b'{"status": 500}', "application/json", ""),
        (b'{"detail": ' + b"[" * 5000, "application/json", ""),
        (WMS, "application/vnd.ogc.se_xml", 'LayerNotDefined: no layer "a&b"'),
        (OWS, "text/xml", "TileOutOfRange: row 9"),
        (S3, "application/xml", "AccessDenied: Access Denied"),
        (b"<ServiceException><![CDATA[ bbox is wrong ]]></ServiceException>", "text/xml", "bbox is wrong"),
        (b"<html><head><title>502 Bad Gateway</title></head><body><h1>no</h1>", "text/html", "502 Bad Gateway"),
        (b"<!DOCTYPE html><body><h1>Not here</h1>", "text/html", "Not here"),
        (b"<html></html>", "text/html", ""),
        (b"no such tile\n", "text/plain; charset=utf-8", "no such tile"),
        (b"\x00\x01\x02", "text/plain", ""),
        (b"\xff\xfe", "", ""),
        (b"", "text/plain", ""),
    ],
)
def test_the_reason_in_the_body_of_an_error_is_found(body, kind, words):
    assert words_in(body, kind) == words


def test_entities_of_strangers_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "boom"><!ENTITY f SYSTEM "file:///etc/passwd">]><title>&a;&f;&amp;</title>'
    assert words_in(bomb, "text/xml") == "&a;&f;&"


def test_a_traceback_that_nobody_expected_shows_no_secret(capsys):
    learn(["pass-w0rd!"])
    try:
        raise ValueError("https://me:pass-w0rd!@h/")
    except ValueError as error:
        print_unexpected(type(error), error, error.__traceback__)
    shown = capsys.readouterr().err
    assert "ValueError" in shown
    assert "pass-w0rd!" not in shown
