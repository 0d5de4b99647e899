"""Which addresses are refused, and that an absent or wrong server is one sentence in seconds."""

import http.server
import socket
import threading
import time

import pytest

from cluster import connect as connecting
from cluster.connect import check_address, connect, is_loopback
from mutirao.core.errors import EnvironmentProblem, RecipeError


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8265", "http://localhost:1", "http://[::1]:8265", "https://127.8.0.1"],
)
def test_loopback_needs_neither_https_nor_token(address):
    assert is_loopback(address)
    check_address(address)


def test_plain_http_to_another_machine_is_refused_even_with_a_token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(RecipeError) as caught:
        check_address("http://head.example.org:8265")
    assert caught.value.code == "insecure-address"
    assert "ssh -N -L 8265:127.0.0.1:8265 head.example.org" in caught.value.hint


def test_https_to_another_machine_needs_a_token(monkeypatch):
    with pytest.raises(RecipeError) as caught:
        check_address("https://head.example.org")
    assert caught.value.code == "no-token"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address("https://head.example.org")


def test_a_password_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(RecipeError) as caught:
        check_address("https://ana:hunter2@head.example.org")
    assert caught.value.code == "secret-in-address"
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ["auto", "ray://head:10001", "127.0.0.1:8265", "", "http://"])
def test_what_is_not_a_job_servers_url_is_a_usage_error(address):
    with pytest.raises(RecipeError) as caught:
        check_address(address)
    assert caught.value.exit_code == 2
    assert "http://127.0.0.1:8265" in caught.value.hint


def refusal(address: str) -> EnvironmentProblem:
    with pytest.raises(EnvironmentProblem) as caught:
        connect(address)
    assert caught.value.exit_code == 4
    assert caught.value.where == address
    assert caught.value.hint
    return caught.value


def test_a_closed_port_is_named_with_its_cure():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    error = refusal(address)
    assert "refused" in str(error)
    assert "ray start --head" in error.hint


def test_a_server_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(connecting, "HELLO_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        started = time.monotonic()
        refusal(f"http://127.0.0.1:{mute.getsockname()[1]}")
        assert time.monotonic() - started < 60  # Ray's own client waits for ever


@pytest.fixture
def answering():
    """Start a web server that answers everything with one status and body; returns its address."""
    servers = []

    def start(status: int, body: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"), [(404, b""), (500, b"oops"), (200, b"<html>"), (200, b"{}")]
)
def test_another_kind_of_server_is_no_cluster(answering, status, body):
    assert refusal(answering(status, body)).code == "no-cluster"


def test_a_refused_token_is_told_apart(answering):
    error = refusal(answering(401, b"Unauthorized: Missing authentication token"))
    assert error.code == "auth"
    assert "RAY_AUTH_MODE=token" in error.hint


def test_the_address_given_wins_over_rays_environment_and_proxies(answering, monkeypatch):
    wanted = answering(200, b'{"ray_version": "2.60.0"}')
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert connect(wanted)._address == wanted
