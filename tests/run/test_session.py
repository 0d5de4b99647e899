"""The local Ray of a run is reachable from this machine only."""

from __future__ import annotations

import os

import psutil
import pytest

from mutirao.run.session import prepare_environment


def test_the_hub_is_asked_only_where_a_source_lies_there(monkeypatch):
    for hub, expected in ((False, "1"), (True, "0")):
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        prepare_environment("", hub)
        prepare_environment("")  # as Ray's session does once more
        assert os.environ["HF_HUB_OFFLINE"] == expected


@pytest.mark.ray
def test_the_local_ray_listens_on_loopback_only(ray_session):
    import ray

    @ray.remote
    def answer() -> int:
        return 42

    assert ray.get(answer.remote()) == 42
    heard = set()
    for process in psutil.Process().children(recursive=True):
        try:
            connections = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        heard |= {(process.name(), c.laddr.ip) for c in connections if c.status == "LISTEN"}
    assert any(name == "gcs_server" for name, _ in heard)
    assert {ip.removeprefix("::ffff:") for _, ip in heard} == {"127.0.0.1"}
