"""One finished run of the tiny recipe, shared by the tests that look at its results."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from in_process import here
from tiny_recipe import RECIPE


@dataclass(frozen=True)
class Place:
    """A workdir and how to call the command line on it."""

    workdir: Path

    def command(self, *arguments: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "mutirao.cli.main",
            *arguments,
            "--workdir",
            str(self.workdir),
        ]

    def call(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=timeout
        )

    def look(self, *arguments: str) -> subprocess.CompletedProcess:
        """A command that only reads, in this process, which need not import all anew."""
        return here(*arguments, "--workdir", str(self.workdir), cwd=self.workdir.parent)

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start in a session of its own, output to a file that `seen` reads."""
        self.workdir.mkdir(parents=True, exist_ok=True)
        with open(self.workdir / "output.txt", "ab") as output:
            return subprocess.Popen(
                self.command(*arguments), stdout=output, stderr=output, start_new_session=True
            )

    def wait_for(self, words: str, process: subprocess.Popen, timeout: float = 240) -> None:
        """Until the output contains `words`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if words in self.output():
                return
            assert process.poll() is None, self.output()
            time.sleep(0.02)
        raise AssertionError(f"never saw {words!r} in:\n{self.output()}")

    def output(self) -> str:
        return (self.workdir / "output.txt").read_text(errors="replace")

    def record(self) -> dict:
        """run.json of the one run in this workdir."""
        (path,) = self.workdir.glob("runs/*/run.json")
        return json.loads(path.read_text())

    def hashes(self) -> dict[str, str]:
        return {name: entry["content_hash"] for name, entry in self.record()["stages"].items()}


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Place, subprocess.CompletedProcess]:
    """The undisturbed run that the other tests compare with."""
    place = Place(tmp_path_factory.mktemp("calm") / "work")
    done = place.call("run", str(RECIPE))
    assert done.returncode == 0, done.stderr
    return place, done


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path / "work")
