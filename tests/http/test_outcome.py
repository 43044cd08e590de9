"""Every status and every exception has one outcome."""

from __future__ import annotations

import ssl
from unittest.mock import Mock

import aiohttp
import pytest
import yarl
from multidict import CIMultiDict, CIMultiDictProxy

from mosaic_async.http.outcome import Outcome, attempts_at, of_error, of_status, reason_of

URL = "http://tiler.example/1/2/3?token=hunter2"
REQUEST = aiohttp.RequestInfo(yarl.URL(URL), "GET", CIMultiDictProxy(CIMultiDict()), yarl.URL(URL))
KEY = Mock(ssl=None, host="tiler.example", port=443)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Outcome.OK),
        (204, Outcome.EMPTY),
        (404, Outcome.EMPTY),
        (429, Outcome.THROTTLE),
        (503, Outcome.THROTTLE),
        *((status, Outcome.RETRY) for status in (408, 425, 500, 502, 504, 520, 521, 522, 523, 524, 529)),
        *((status, Outcome.FAIL) for status in (201, 206, 304, 400, 401, 403, 405, 406, 410, 413, 414, 415, 422, 501)),
    ],
)
def test_every_status_has_one_outcome(status, expected):
    assert of_status(status) is expected


@pytest.mark.parametrize(("status", "expected"), [(401, Outcome.END), (403, Outcome.END), (422, Outcome.FAIL)])
def test_a_second_refusal_in_a_row_is_the_run_s(status, expected):
    assert of_status(status, refusals=1) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (aiohttp.ClientConnectorError(KEY, OSError(111, "refused")), Outcome.RETRY),
        (aiohttp.ClientConnectorDNSError(KEY, OSError("no such name")), Outcome.RETRY),
        (aiohttp.ServerDisconnectedError(), Outcome.RETRY),
        (aiohttp.ClientOSError(104, "reset"), Outcome.RETRY),
        (ConnectionResetError(), Outcome.RETRY),
        (aiohttp.SocketTimeoutError(), Outcome.RETRY),
        (aiohttp.ConnectionTimeoutError(), Outcome.RETRY),
        (TimeoutError(), Outcome.RETRY),
        (aiohttp.ClientPayloadError(), Outcome.RETRY),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.SSLCertVerificationError()), Outcome.END),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError()), Outcome.END),
        (aiohttp.InvalidURL(URL), Outcome.END),
        (aiohttp.ClientResponseError(REQUEST, (), status=400, message=URL), Outcome.RETRY),
        (aiohttp.ClientError(URL), Outcome.RETRY),
        (RuntimeError(), Outcome.FAIL),
    ],
)
def test_every_exception_has_one_outcome_and_a_reason(error, expected):
    assert of_error(error) is expected
    reason = reason_of(error, 30)
    assert reason
    assert "hunter2" not in reason


@pytest.mark.parametrize(("status", "attempts", "expected"), [(500, 5, 3), (500, 2, 2), (503, 5, 5), (None, 5, 5)])
def test_a_500_gets_fewer_attempts(status, attempts, expected):
    assert attempts_at(status, attempts) == expected
