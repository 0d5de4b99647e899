"""Object stores and the Hugging Face hub, all as pyarrow file systems, and what their errors mean.

In: a URL (`s3://`, `gs://`, `hf://datasets/...`). Out: files under it, their size and version, and
a UserError with the cure for whatever the store refuses. Credentials come from the environment and
the stores' own files, never from a recipe; AWS_NO_SIGN_REQUEST or GS_NO_SIGN_REQUEST asks for
anonymous reading. Every request ends within REQUEST_S and is tried ATTEMPTS times.
"""

from __future__ import annotations

import os
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from pyarrow import fs

from mutirao.core.errors import EnvironmentProblem, RecipeError, UserError

SCHEMES = ("s3://", "gs://", "hf://")
CONNECT_S, REQUEST_S, GOOGLE_S, ATTEMPTS = 5, 30, 15, 3
WILD = "*?["
NO_NETWORK = (
    "network_connection",
    "curlcode",
    "couldn't connect",
    "could not resolve",
    "connection refused",
    "timed out",
    "timeout was reached",
    "offline mode",
    "connecterror",
    "connecttimeout",
    "name or service not known",
    "temporary failure in name resolution",
    "cannot reach",
    "cannot find an appropriate cached",
)
NO_ACCESS = (
    "access_denied",
    "accessdenied",
    "invalid_access_key_id",
    "invalidaccesskeyid",
    "signature",
    "credential",
    "forbidden",
    "http status 403",
    "http status 401",
    "permission_denied",
    "unauthenticated",
    "gated",
    "401 client error",
    "403 client error",
)
NO_BUCKET = ("no_such_bucket", "nosuchbucket", "bucket does not exist")
CURES = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile); for a public bucket set "
    "AWS_NO_SIGN_REQUEST=yes.",
    "gs": "Run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS; for "
    "a public bucket set GS_NO_SIGN_REQUEST=yes.",
    "hf": "Check the name; for a private or gated dataset accept its terms on the hub and set "
    "HF_TOKEN.",
}


def is_url(path: str) -> bool:
    """Raises RecipeError for a scheme that is not known."""
    scheme, separator, _ = path.partition("://")
    if not separator or not scheme.isalnum():
        return False
    if f"{scheme}://" not in SCHEMES:
        problem = f"Unknown kind of URL {scheme}://"
        hint = (
            "Known: s3://BUCKET/KEY, gs://BUCKET/KEY, hf://datasets/OWNER/NAME, sample://PATTERN."
        )
        raise RecipeError(problem, path, hint, "unknown-url")
    return True


def found_at(url: str) -> tuple[str, list[str]]:
    """(root URL, URLs of all files) of a file, a folder or a pattern; [] where there is nothing.

    Names that start with a dot are left out, as for folders of this machine. Raises UserError.
    """
    scheme, key = url.partition("://")[0], key_of(url)
    system = filesystem(url)
    try:
        if any(c in key for c in WILD):
            root = _pattern_root(key)
            rest = key[len(root) :].strip("/").split("/")
            found = [k for k in _files(system, root, len(rest) > 1) if _fits(k, root, rest)]
        else:
            info = system.get_file_info(key)
            if info.type == fs.FileType.File:
                root, found = key.rpartition("/")[0], [key]
            elif info.type == fs.FileType.Directory:
                root, found = key, _files(system, key, True)
            else:
                _must_have_bucket(system, url)
                root, found = key, []
    except FileNotFoundError:
        _must_have_bucket(system, url)
        return url, []
    except Exception as error:
        raise problem(url, error) or error from error
    return f"{scheme}://{root}", [f"{scheme}://{k}" for k in sorted(found)]


def key_of(url: str) -> str:
    return url.partition("://")[2].rstrip("/")


def status(url: str) -> tuple[int, str]:
    """(bytes, a mark that changes with the content). Raises FileNotFoundError."""
    system, key = filesystem(url), key_of(url)
    if url.startswith("hf://"):
        found = _hub().info(key)
        return int(found["size"]), str(found.get("blob_id") or found.get("etag") or "")
    info = system.get_file_info(key)
    if info.type != fs.FileType.File:
        raise FileNotFoundError(f"no such object: {url}")
    return info.size, str(info.mtime_ns)


def filesystem(url: str) -> fs.FileSystem:
    """Cached by scheme and bucket. Raises EnvironmentProblem where a package is missing."""
    if url.startswith("hf://"):
        return _hub_filesystem()
    if url.startswith("gs://"):
        return _google()
    return _amazon(key_of(url).split("/")[0])


@lru_cache(16)
def _amazon(bucket: str) -> fs.FileSystem:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, host = endpoint.rpartition("://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        anonymous=_asked("AWS_NO_SIGN_REQUEST"),
        region=region or (None if endpoint else _region(bucket)),
        endpoint_override=host or None,
        scheme=scheme or "https",
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _region(bucket: str) -> str | None:
    try:
        return fs.resolve_s3_region(bucket)
    except OSError:  # no network, or no such bucket: the first request says it better
        return None


@lru_cache(1)
def _google() -> fs.FileSystem:
    scheme, _, host = os.environ.get("STORAGE_EMULATOR_HOST", "").rpartition("://")
    return fs.GcsFileSystem(
        anonymous=_asked("GS_NO_SIGN_REQUEST"),
        endpoint_override=host or None,
        scheme=(scheme or "http") if host else None,
        retry_time_limit=timedelta(seconds=GOOGLE_S),
    )


@lru_cache(1)
def _hub_filesystem() -> fs.FileSystem:
    return fs.PyFileSystem(fs.FSSpecHandler(_hub()))


@lru_cache(1)
def _hub() -> Any:
    try:
        from huggingface_hub import HfFileSystem
    except ImportError as error:
        raise EnvironmentProblem(
            "hf:// needs the package huggingface_hub",
            hint="Install it: pip install huggingface_hub",
            code="no-package",
        ) from error
    return HfFileSystem()


def _asked(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "y", "yes", "true", "on")


def _files(system: fs.FileSystem, root: str, recursive: bool) -> list[str]:
    listed = system.get_file_info(fs.FileSelector(root, recursive=recursive))
    files = (info for info in listed if info.type == fs.FileType.File)
    return [info.path for info in files if not _is_hidden(info.path[len(root) :])]


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def _pattern_root(key: str) -> str:
    """The deepest folder before the first wildcard."""
    parts = key.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in WILD))
    return "/".join(parts[:first])


def _fits(key: str, root: str, pattern: list[str]) -> bool:
    return _match(key[len(root) :].strip("/").split("/"), pattern)


def _match(parts: list[str], pattern: list[str]) -> bool:
    """As glob matches: `*` inside one name, `**` over any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_match(parts[k:], pattern[1:] or ["*"]) for k in range(len(parts)))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])


def _must_have_bucket(system: fs.FileSystem, url: str) -> None:
    if url.startswith("hf://"):
        return
    bucket = key_of(url).split("/")[0]
    if system.get_file_info(bucket).type == fs.FileType.NotFound:
        raise _no_bucket(url)


def _no_bucket(url: str) -> RecipeError:
    return RecipeError("No such bucket", url, "Correct the path.", "no-bucket")


def problem(url: str, error: Exception) -> UserError | None:
    """What a store's exception means; None where it is not the store that fails."""
    if isinstance(error, UserError):
        return error
    said = f"{type(error).__name__} {error}".lower()
    scheme = url.partition("://")[0]
    if any(sign in said for sign in NO_BUCKET):
        return _no_bucket(url)
    if any(sign in said for sign in NO_NETWORK):
        hint = "Check the network, then run the same command again; finished work is kept."
        if "offline mode" in said:
            hint = "HF_HUB_OFFLINE forbids it: unset it, then run the same command again."
        return EnvironmentProblem("Cannot reach the store", url, hint, "no-network")
    if isinstance(error, PermissionError) or any(sign in said for sign in NO_ACCESS):
        return EnvironmentProblem("The store refuses access", url, CURES[scheme], "no-credentials")
    if isinstance(error, FileNotFoundError):
        return None
    if "aws error" in said or "google::cloud" in said or "http" in type(error).__module__:
        return EnvironmentProblem(f"The store fails: {str(error)[:200]}", url, code="store-failed")
    return None
