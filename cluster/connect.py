"""The way to a cluster's job server: which addresses are safe, and a client that never hangs.

In: the URL given as --address. Out: a Ray job client, or one sentence within some ten seconds.
The job server runs any command it is sent, so beyond this machine it must be reached by https with
a token, or through an ssh tunnel (which makes it a loopback address here).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from mutirao.core.errors import EnvironmentProblem, RecipeError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

CONNECT_S = 5.0
HELLO_S = 8.0  # for the version of the server, the first thing asked
ANSWER_S = 60.0  # without a byte, for everything else: uploads, long logs
EXAMPLE = "http://127.0.0.1:8265"
# Ray lets both override the address that its client is given.
OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
CHATTY = (
    "dashboard.modules.job.sdk",
    "dashboard.modules.dashboard_sdk",
    "_private.runtime_env.packaging",
)


def connect(address: str) -> JobSubmissionClient:
    """A client for the job server at `address`.

    Raises RecipeError (exit 2) for an unsafe address, EnvironmentProblem (exit 4) if no job server
    answers there or it wants another token.
    """
    url = check_address(address)
    _knock(url, address)
    with _without(OVERRIDES):
        return _client(address, url)


def check_address(address: str) -> SplitResult:
    """The parts of a safe address. Raises RecipeError with the cure for an unsafe one."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        problem = f"--address takes the URL of a Ray job server, not {address!r}"
        raise RecipeError(problem, hint=f"For example {EXAMPLE}", code="bad-address")
    if url.username or url.password:
        hint = "Put the token into RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token instead."
        raise RecipeError("An address holds no password", hint=hint, code="secret-in-address")
    if is_loopback(address):
        return url
    if url.scheme == "http":
        raise RecipeError(
            "Plain http to another machine: anyone on the way could run commands on the cluster",
            address,
            f"Use https, or a tunnel: ssh -N -L 8265:127.0.0.1:{url.port or 8265} {url.hostname}, "
            f"then --address {EXAMPLE}",
            "insecure-address",
        )
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise RecipeError(
            "No token is in use for a cluster on another machine",
            address,
            "Set RAY_AUTH_MODE=token here and on the cluster, with the same ~/.ray/auth_token.",
            "no-token",
        )
    return url


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _knock(url: SplitResult, address: str) -> None:
    """Open and close a connection: Ray's client would wait for minutes where nothing answers."""
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), timeout=CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _client(address: str, url: SplitResult) -> JobSubmissionClient:
    import requests
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in CHATTY:  # what they tell at INFO, we say ourselves
        logging.getLogger(f"ray.{name}").setLevel(logging.WARNING)
    # A proxy from the environment can't reach our loopback.
    direct = {"proxies": {"http": None, "https": None}} if is_loopback(address) else {}

    class Client(JobSubmissionClient):
        """Ray's client with time limits: its own requests wait for ever."""

        def _do_request(self, method: str, endpoint: str, **kwargs: Any) -> Any:
            answer_s = HELLO_S if endpoint == "/api/version" else ANSWER_S
            limits = {"timeout": (CONNECT_S, answer_s), **direct}
            return super()._do_request(method, endpoint, **{**limits, **kwargs})

    try:
        return Client(f"{url.scheme}://{url.netloc}{url.path}".rstrip("/"))
    except AuthenticationError as error:
        hint = "Set RAY_AUTH_MODE=token and copy the cluster's ~/.ray/auth_token here (mode 0600)."
        problem = f"No access to the cluster: {_first_line(error).split('. ')[0]}"
        raise EnvironmentProblem(problem, address, hint, "auth") from error
    except (OSError, RuntimeError, ValueError, KeyError, requests.RequestException) as error:
        raise _unreachable(address, _first_line(error)) from error


def _unreachable(address: str, reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"No Ray job server answers: {reason}",
        address,
        "Start one (ray start --head --dashboard-host=127.0.0.1) or correct --address; "
        "behind ssh, check that the tunnel is open.",
        "no-cluster",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
