"""The local cloud: only on the loopback interface, closed to unknown credentials, and deleted when it is stopped."""

import fcntl
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from dev import local_cloud
from ops import checkout


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[checkout.Cloud]:
    """A cloud beside the one that runs, with a folder and a port of its own."""
    monkeypatch.setenv("NEXUS_CLOUD_FOLDER", str(tmp_path))
    monkeypatch.delenv("NEXUS_CLOUD_PORT", raising=False)
    yield local_cloud.start()
    local_cloud.stop()


def test_a_taken_port_is_avoided_and_a_second_start_finds_the_first(
    cloud: checkout.Cloud, second: checkout.Cloud
) -> None:
    assert second.port != cloud.port
    assert local_cloud.start() == second == checkout.running()


def test_stop_ends_this_checkouts_cloud_and_no_other(cloud: checkout.Cloud, second: checkout.Cloud) -> None:
    assert local_cloud.stop()
    assert checkout.running() is None
    assert not local_cloud.stop()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", second.port)):
        pass
    socket.create_connection(("127.0.0.1", cloud.port)).close()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(
    cloud: checkout.Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_FOLDER", str(tmp_path))
    with pytest.raises(local_cloud.CloudError, match=f"port {cloud.port} is taken"):
        local_cloud.start(cloud.port)


def test_the_cloud_listens_on_one_loopback_address(cloud: checkout.Cloud) -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", cloud.port), timeout=2):
        pass  # a server on all interfaces would answer here too


def test_a_start_waits_for_a_process_that_asks_whether_the_cloud_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEXUS_CLOUD_FOLDER", str(tmp_path))
    monkeypatch.delenv("NEXUS_CLOUD_PORT", raising=False)
    (tmp_path / "cloud.json").write_text("what an earlier cloud has left, and more of it")
    refused = []
    with (tmp_path / "cloud.json").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)

        def take_lock(descriptor: int) -> bool:
            if taken := checkout.take_lock(descriptor):
                return taken
            refused.append(descriptor)
            fcntl.flock(asking, fcntl.LOCK_UN)
            return False

        monkeypatch.setattr(local_cloud, "take_lock", take_lock)
        try:
            assert local_cloud.start() == checkout.running()
        finally:
            local_cloud.stop()
    assert len(refused) == 1


def test_a_proxy_set_in_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEXUS_CLOUD_FOLDER", str(tmp_path))
    monkeypatch.delenv("NEXUS_CLOUD_PORT", raising=False)
    try:
        for name, value in local_cloud.start().exports().items():
            monkeypatch.setenv(name, value)
        assert boto3.client("sts").get_caller_identity()["Account"] == checkout.ACCOUNT_ID
    finally:
        local_cloud.stop()


def test_unknown_credentials_are_refused(cloud: checkout.Cloud) -> None:
    stranger = boto3.client("s3", aws_access_key_id="AKIANOBODYNOBODYNOBO", aws_secret_access_key="guessed")
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        stranger.list_buckets()
