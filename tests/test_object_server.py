"""The object servers of the tests do what the tests rely on."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.object_server import Identity, moto_server, seaweed_server

STRANGER = Identity("a-stranger-key", "a-stranger-secret")
READER = Identity("a-reader-key", "a-reader-secret", ("Read",))


def test_moto_puts_an_object_only_where_none_is(tmp_path):
    with moto_server(tmp_path) as server:
        client = server.client()
        client.create_bucket(Bucket="bucket")
        client.put_object(Bucket="bucket", Key="key", Body=b"first", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            client.put_object(Bucket="bucket", Key="key", Body=b"second", IfNoneMatch="*")
        assert server.keys("bucket") == ["key"]


@pytest.mark.slow
def test_seaweed_knows_its_identities_and_what_each_may_do(tmp_path):
    with seaweed_server(tmp_path, [READER]) as server:
        owner, reader = server.client(), server.client(READER)
        owner.create_bucket(Bucket="bucket")
        owner.put_object(Bucket="bucket", Key="key", Body=b"first")
        assert reader.get_object(Bucket="bucket", Key="key")["Body"].read() == b"first"
        with pytest.raises(ClientError, match="AccessDenied"):
            reader.list_objects_v2(Bucket="bucket")
        with pytest.raises(ClientError):
            server.client(STRANGER).get_object(Bucket="bucket", Key="key")
