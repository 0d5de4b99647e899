"""Ray workers and whole nodes are killed while the data stages run: nothing else comes out.

`benchmarks/scale_run.py --kill` does the same on a large corpus.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from mutirao.core.manifest import finished_part, write_part

LAST = "neardup"
NODES = """
import json, os, sys, threading, time
from pathlib import Path
import psutil
sys.path.insert(0, sys.argv[2])
from ray.cluster_utils import Cluster
import ray
from conftest import Recipe, run_stages

size = {"num_cpus": 1, "object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
living = [cluster.add_node(**size) for _ in range(2)]
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
removed = []

def end(processes):
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            pass

def take_away():
    clean = Path(sys.argv[1], "store", "clean", "key")
    while not list(clean.glob("*.part.json")):  # work is going on
        time.sleep(0.05)
    while living:
        node = living.pop()
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        lost = raylet.children(recursive=True)  # a node that is lost takes these with it
        cluster.remove_node(node, allow_graceful=False)
        end(lost)
        removed.append(time.time())
        time.sleep(6)

thread = threading.Thread(target=take_away)
thread.start()
run_stages(Path(sys.argv[1]), Recipe(**json.loads(sys.argv[3])), sys.argv[4], use_ray=True)
done = time.time()
thread.join()
print(json.dumps([at < done for at in removed]))
sys.stdout.flush()
end(psutil.Process().children(recursive=True))
os._exit(0)
"""


class Killer(threading.Thread):
    """SIGKILLs `deaths` Ray workers of this process's own tree, each while it has a unit."""

    def __init__(self, deaths: int):
        super().__init__(daemon=True)
        self.left, self.ended = deaths, threading.Event()

    def run(self) -> None:
        while self.left and not self.ended.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                if self.left and works(process):
                    process.send_signal(signal.SIGKILL)
                    self.left -= 1
                    self.ended.wait(0.5)


def works(process: psutil.Process) -> bool:
    """Ray shows in a worker's title what it does; a Ray Data task is called `Map(call)`."""
    try:
        return "".join(process.cmdline()[:1]).startswith("ray::Map")
    except psutil.Error:
        return False


def recipe_fields(helpers, folder: Path) -> dict:
    """Four files, so each stage has several units; near-duplicates lie in other files."""
    for number in range(4):
        rows = [{"id": k, "text": helpers.sentence(k, 300)} for k in range(number, 160, 4)]
        rows += [{"id": "near", "text": helpers.sentence(number + 30, 300) + " E mais isto."}]
        rows += [{"id": "same", "text": helpers.sentence(number + 60, 300)}]
        (folder / f"part{number}.jsonl").write_bytes(helpers.jsonl(rows))
    return {
        "sources": [{"path": str(folder / "part*")}],
        "clean": {"shard_bytes": 60_000},
        "langid": {"keep": ["por", "glg"], "min_confidence": 0.0},
    }


def hashes(done) -> dict[str, str]:
    return {stage: manifest.content_hash for stage, manifest in done.items()}


@pytest.mark.ray
def test_killed_workers_change_nothing(helpers, tmp_path, ray_session):
    """The stage with the most passes; what it reads is made without Ray, which is quicker."""
    from data_jobs.pipeline import STAGES

    recipe = helpers.Recipe(**recipe_fields(helpers, tmp_path))
    calm = helpers.run_stages(tmp_path, recipe, LAST)
    assert calm[LAST].counts["dropped"] and calm["exact"].counts["dropped"]
    job = helpers.make_job(tmp_path, LAST, recipe, calm, use_ray=True)
    job = dataclasses.replace(job, directory=tmp_path / "stormy")
    job.directory.mkdir()
    killer = Killer(deaths=2)
    killer.start()
    result = STAGES[LAST](job)
    killer.ended.set()
    killer.join()
    assert killer.left < 2
    found = {"parts": [vars(p) for p in result.parts], "counts": result.counts, "info": result.info}
    assert found == {name: calm[LAST].content[name] for name in found}


@pytest.mark.ray
def test_a_unit_killed_between_two_parts_does_the_second_alone(helpers, tmp_path, ray_session):
    from data_jobs.units import run_units

    def unit(item):
        """Two parts; at the first attempt the worker dies between them."""
        folder = Path(item["folder"])
        attempts = folder / f"attempts-{item['number']}"
        attempts.write_text(attempts.read_text() + "x" if attempts.exists() else "x")
        made = []
        for k in range(2):
            name = f"part-{item['number']}-{k}"
            if finished_part(folder, name) is None:
                write_part(folder, name, lambda stream: stream.write(b"text"))
                made.append(k)
            if k == 0 and attempts.read_text() == "x":
                os.kill(os.getpid(), signal.SIGKILL)
        return {"made": made}

    job = helpers.make_job(tmp_path, "clean", helpers.sample_recipe(), {}, use_ray=True)
    items = [{"folder": str(tmp_path), "number": number} for number in range(3)]
    results = run_units(job, items, unit, "dying")
    assert [result["made"] for result in results] == [[1], [1], [1]]
    assert {(tmp_path / f"attempts-{n}").read_text() for n in range(3)} == {"xx"}


@pytest.mark.soak
@pytest.mark.ray
def test_nodes_taken_away_change_nothing(helpers, tmp_path):
    """A head and two nodes on this host; both nodes are taken away, without a word, while work is
    going on, so all that ran there is done again by what is left."""
    fields = recipe_fields(helpers, tmp_path)
    calm = helpers.run_stages(tmp_path / "calm", helpers.Recipe(**fields), LAST)
    arguments = [str(tmp_path / "stormy"), str(Path(__file__).parent), json.dumps(fields), LAST]
    child = subprocess.Popen(
        [sys.executable, "-c", NODES, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        told, _ = child.communicate(timeout=300)
    finally:
        end_tree(child)
    assert child.returncode == 0
    assert any(json.loads(told.splitlines()[-1]))  # a node went before the end
    stormy = helpers.run_stages(tmp_path / "stormy", helpers.Recipe(**fields), LAST)
    assert hashes(stormy) == hashes(calm)


def end_tree(child: subprocess.Popen) -> None:
    """The child and all that it started, where it has not ended them itself."""
    processes = []
    if child.poll() is None:
        processes = psutil.Process(child.pid).children(recursive=True)
    child.kill()
    child.wait()
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
