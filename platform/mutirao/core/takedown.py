"""What must not come back: the takedown list of a workdir, as keyed hashes.

`takedown/key` holds 32 random bytes (mode 0600), `takedown/list.json` HMAC-SHA256 digests (RFC
2104) of ids, the sources' own ids, URLs and texts: without the key nobody can test a guess, and no
text or id stands there. `mutirao data forget` adds to the list; `clean` asks it and rejects what
matches. Where there is no list, `Takedown.load` is falsy after one look at the disk.
Memory: about 100 bytes an entry.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mutirao.core.errors import DataError
from mutirao.core.files import read_json, write_json
from mutirao.core.lease import Lease
from mutirao.core.manifest import check_format

FORMAT = 1
FOLDER, KEY, LIST = "takedown", "key", "list.json"
LEASE, PENDING = "lease.json", "pending.json"  # of a takedown that is going on
REASON = "takedown"  # of the rejects in `clean`
KINDS = ("id", "name", "url", "text")


@dataclass(frozen=True)
class Takedown:
    """The list, ready to be asked. Falsy where nothing was taken down."""

    key: bytes = b""
    digests: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def load(cls, workdir: Path) -> Takedown:
        """The list of the workdir (its root folder). Raises DataError if its key is lost."""
        path = workdir / FOLDER / LIST
        if not path.exists():
            return cls()
        record = read_json(path)
        check_format(record, FORMAT, path)
        digests = frozenset(d for kind in KINDS for d in record["entries"].get(kind, ()))
        return cls(read_key(workdir), digests)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def matches(
        self,
        id: bytes | str = b"",
        url: str = "",
        text: str = "",
        source: str = "",
        name: str = "",
    ) -> bool:
        """Whether a document was taken down: by its id (16 bytes or hex), its URL, its text
        (cleaned; without regard to case and white space), or its source's own id for it."""
        if not self.digests:
            return False
        return any(d in self.digests for d in self.all_digests(id, url, text, source, name))

    def all_digests(
        self, id: bytes | str, url: str, text: str, source: str, name: str
    ) -> Iterable[str]:
        if id:
            yield digest(self.key, "id", id.hex() if isinstance(id, bytes) else id.lower())
        if url:
            yield digest(self.key, "url", url)
        if name:
            yield digest(self.key, "name", f"{source}\0{name}")
        if text and not text.isspace():
            yield digest(self.key, "text", normalized(text))


def workdir_of(stage_directory: Path) -> Path:
    """The workdir's root, from a stage's folder `store/<stage>/<key>`."""
    return stage_directory.absolute().parents[2]


def wait_for_takedown(workdir: Path, say: Callable[[str], None]) -> None:
    """While `mutirao data forget` rewrites results, no run may begin to read them.

    Raises DataError where it was killed: a run could copy what is not rewritten yet.
    """
    path = workdir / FOLDER / LEASE
    lease, said = Lease(path), False
    while path.exists() and lease.held_by_another():
        if not said:
            say(f"Documents are being taken down; waiting for {lease.describe()}")
            said = True
        time.sleep(0.5)
    if (workdir / FOLDER / PENDING).exists():
        raise DataError(
            "A takedown in this workdir was interrupted",
            str(workdir / FOLDER / PENDING),
            "Finish it first: mutirao data forget (with the same --workdir).",
            "takedown-pending",
        )


def normalized(text: str) -> str:
    """Without regard to case and to runs of white space."""
    return " ".join(text.casefold().split())


def digest(key: bytes, kind: str, value: str) -> str:
    data = f"{kind}\0{value}".encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest()


def read_key(workdir: Path) -> bytes:
    path = workdir / FOLDER / KEY
    try:
        key = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 32:
        raise DataError(
            "The key of the takedown list is missing or damaged",
            str(path),
            "Put it back from a copy. Without it the list cannot be read: remove the folder "
            "and forget the documents again.",
            "takedown-key",
        )
    return key


def make_key(workdir: Path) -> bytes:
    """The key of the workdir, made (mode 0600) where there is none."""
    path = workdir / FOLDER / KEY
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{KEY}.tmp")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
            stream.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    return read_key(workdir)


def add(workdir: Path, values: Mapping[str, Iterable[str]]) -> int:
    """Put values on the list, by kind ('id' as hex, 'name' as source NUL name, 'url', 'text' as
    it is); returns how many were not there before."""
    key = make_key(workdir)
    path = workdir / FOLDER / LIST
    record = read_json(path) if path.exists() else {"entries": {}}
    entries = {kind: set(record["entries"].get(kind, ())) for kind in KINDS}
    before = sum(map(len, entries.values()))
    for kind, some in values.items():
        whole = (normalized(v) if kind == "text" else v for v in some)
        entries[kind] |= {digest(key, kind, value) for value in whole if value}
    listed = {kind: sorted(digests) for kind, digests in entries.items()}
    write_json(path, {"format": FORMAT, "kind": "takedown", "entries": listed})
    return sum(map(len, entries.values())) - before
