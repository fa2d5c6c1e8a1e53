"""A server that answers as Amazon's S3 does."""

from collections.abc import Iterator

import pytest

from lightlm.store.remote import connect


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of a bucket on a server that is moto's, for this process and its children."""
    moto = pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    import boto3

    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "an-access-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    connect.cache_clear()
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
        Bucket="team"
    )
    yield "s3://team/corpora"
    connect.cache_clear()
    server.stop()
