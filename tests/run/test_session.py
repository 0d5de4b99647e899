"""The local Ray of a run is reachable from this machine only."""

from __future__ import annotations

import psutil
import pytest


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
