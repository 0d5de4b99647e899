"""Spike: lease, parts and commit under kill -9 of writers, readers and drivers.

Two writers fight for one key while readers open whatever is committed; each is killed at random
moments and started again, until the artefact is committed. Then the bytes are compared with those
of an undisturbed writer. Usage: python benchmarks/spike_commit.py --rounds 20 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutirao.core.files import sha256_hex
from mutirao.core.lease import Lease
from mutirao.core.manifest import commit, finished_part, read_manifest, verify, write_part

PARTS, PART_BYTES = 12, 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--role", choices=["writer", "reader"])
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    if options.role == "writer":
        write_artefact(options.directory)
    elif options.role == "reader":
        read_forever(options.directory)
    else:
        print(json.dumps(soak(options.rounds, random.Random(options.seed)), indent=1))


def write_artefact(directory: Path) -> None:
    """What the composer does with a stage: lease, unfinished parts, manifest."""
    with Lease(directory / "lease.json", f"writer {os.getpid()}").hold(poll_s=0.02):
        if read_manifest(directory) is not None:
            return
        parts = []
        for number in range(PARTS):
            name = f"part-{number:05d}.bin"
            part = finished_part(directory, name)
            if part is None:
                part = write_part(directory, name, lambda stream, n=number: fill(stream, n))
            parts.append(vars(part))
        commit(directory, {"stage": "spike", "parts": parts}, {"pid": os.getpid()})


def fill(stream, number: int) -> int:
    """Deterministic bytes, written slowly enough that kills land inside a part."""
    for block in range(10):
        stream.write(sha256_hex(f"{number}.{block}".encode()).encode() * (PART_BYTES // 640))
        time.sleep(0.002)
    return 10


def read_forever(directory: Path) -> None:
    """Open what is committed and check it; a half-written artefact ends this process with 1."""
    while True:
        manifest = read_manifest(directory)
        if manifest is not None and verify(manifest):
            sys.exit(1)
        time.sleep(0.005)


def soak(rounds: int, rng: random.Random) -> dict:
    kills = {"writer": 0, "reader": 0}
    torn_reads, different, attempts = 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        write_artefact(calm)
        expected = read_manifest(calm).content_hash
        for number in range(rounds):
            directory = Path(folder) / f"round-{number}"
            tries, torn = one_round(directory, rng, kills)
            attempts.append(tries)
            torn_reads += torn
            different += read_manifest(directory).content_hash != expected
    return {
        "rounds": rounds,
        "killed": kills,
        "writers_per_round": {"median": sorted(attempts)[rounds // 2], "max": max(attempts)},
        "readers_that_saw_torn_data": torn_reads,
        "rounds_with_other_bytes": different,
    }


def one_round(directory: Path, rng: random.Random, kills: dict[str, int]) -> tuple[int, int]:
    """Kill until committed; returns (writers started, readers that failed)."""
    started, torn = 0, 0
    processes: dict[str, list[subprocess.Popen]] = {"writer": [], "reader": []}
    while read_manifest(directory) is None:
        for role, wanted in (("writer", 2), ("reader", 1)):
            alive = [p for p in processes[role] if p.poll() is None]
            torn += sum(p.returncode == 1 for p in processes[role] if p.poll() is not None)
            while len(alive) < wanted:
                alive.append(spawn(role, directory))
                started += role == "writer"
            processes[role] = alive
        time.sleep(rng.uniform(0.15, 0.6))
        role = rng.choice(["writer", "writer", "reader"])
        victim = rng.choice(processes[role])
        if victim.poll() is None:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            kills[role] += 1
    for process in [*processes["writer"], *processes["reader"]]:
        torn += process.poll() == 1
        process.kill()
        process.wait()
    return started, torn


def spawn(role: str, directory: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, "--role", role, "--directory", str(directory)]
    )


if __name__ == "__main__":
    main()
