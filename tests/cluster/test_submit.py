"""Jobs on a real Ray head: submitting, following, exit codes, attaching, what a worker imports."""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from cluster.connect import connect
from cluster.follow import follow
from cluster.package import build_wheel, unpack
from cluster.submit import job_environment, submit_entrypoint
from mutirao.core.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
TINY = ROOT / "tests" / "recipes" / "tiny.yaml"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """The address of a Ray head with two CPUs on loopback. Its PATH has no Python with Ray, as on
    many clusters. Its session folder is short: socket paths have a limit of 107 bytes."""
    temporary = tempfile.mkdtemp(prefix="m", dir="/tmp")
    ports = {
        name: free_port()
        for name in (
            "port",
            "dashboard-port",
            "dashboard-agent-listen-port",
            "ray-client-server-port",
        )
    }
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--object-store-memory=200000000", f"--temp-dir={temporary}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    with open(Path(temporary) / "start.log", "wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    address = f"http://127.0.0.1:{ports['dashboard-port']}"
    try:
        wait_until_answers(address, process, Path(temporary) / "start.log")
        yield address
    finally:
        end(process)
        shutil.rmtree(temporary, ignore_errors=True)


def end(process: subprocess.Popen) -> None:
    """SIGTERM takes the head's processes with it, but waits long for the actors Ray Data leaves."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.send_signal(signal.SIGTERM)
    for survivor in psutil.wait_procs(family, timeout=6)[1]:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait(10)


def wait_until_answers(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(120):
        if process.poll() is not None:
            break
        try:
            connect(address).submit_job(entrypoint="true")  # refused until the node's agent is up
            return
        except Exception:
            time.sleep(0.5)
    raise AssertionError(f"Ray did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture
def client(head):
    return connect(head)


def run_to_end(client, head, entrypoint, job_id, runtime_env=None):
    """(exit code, log) of a job."""
    job_id, _ = submit_entrypoint(client, entrypoint, job_id, runtime_env or {})
    log = io.StringIO()
    return follow(client, job_id, head, Progress(quiet=True), log), log.getvalue()


def test_the_jobs_own_exit_code_and_log_come_back(client, head):
    code, log = run_to_end(client, head, "echo one; sleep 1; echo two; exit 3", "codes")
    assert code == 3
    assert [line for line in log.splitlines() if line in ("one", "two")] == ["one", "two"]


def test_submitting_twice_attaches_while_it_runs_and_starts_anew_after_a_stop(client, head):
    assert submit_entrypoint(client, "exec sleep 60", "twice", {}) == ("twice", True)
    assert submit_entrypoint(client, "exec sleep 60", "twice", {}) == ("twice", False)
    threading.Timer(3, client.stop_job, ["twice"]).start()
    assert follow(client, "twice", head, Progress(quiet=True), io.StringIO()) == 75
    assert submit_entrypoint(client, "exit 0", "twice", {}) == ("twice-2", True)
    assert follow(client, "twice-2", head, Progress(quiet=True), io.StringIO()) == 0


class CuttingProxy(threading.Thread):
    """Forwards connections to the head; each of the first `cuts` log streams is cut on the way."""

    def __init__(self, target: str, cuts: int, after_bytes: int):
        super().__init__(daemon=True)
        self.target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self.cuts, self.after_bytes, self.done = cuts, after_bytes, 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def run(self):
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            far = socket.create_connection(self.target)
            first = near.recv(65536)
            far.sendall(first)
            cut = b"/logs/tail" in first and self.done < self.cuts
            self.done += cut
            limit = self.after_bytes if cut else None
            threading.Thread(target=self.forward, args=(far, near, limit), daemon=True).start()
            threading.Thread(target=self.forward, args=(near, far, None), daemon=True).start()

    @staticmethod
    def forward(source, sink, limit):
        sent = 0
        try:
            while data := source.recv(4096):
                sink.sendall(data)
                sent += len(data)
                if limit is not None and sent >= limit:
                    break
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_a_cut_log_stream_is_taken_up_again_without_repeating_a_line(head):
    proxy = CuttingProxy(head, cuts=2, after_bytes=300)
    proxy.start()
    client = connect(proxy.address)
    loop = "for i in $(seq 90); do echo line-$i; sleep 0.1; done; exit 2"
    code, log = run_to_end(client, proxy.address, loop, "cut")
    proxy.server.close()
    assert proxy.done == 2
    assert code == 2
    lines = [line for line in log.splitlines() if line.startswith("line-")]
    assert lines == [f"line-{i}" for i in range(1, 91)]


WHERE = """
import platform, sys
import mutirao, data_jobs, train_jobs, cluster
import ray

@ray.remote(num_cpus=0.1)
def there():
    import platform, data_jobs
    return platform.system(), data_jobs.__file__

ray.init(log_to_driver=False)
print("driver", platform.system(), mutirao.__file__, data_jobs.__file__, cluster.__file__)
print("worker", *ray.get(there.remote()))
"""


def test_driver_and_workers_import_the_shipped_code_and_pythons_own_platform(
    client, head, tmp_path
):
    unpack(build_wheel(tmp_path), tmp_path / "job")
    (tmp_path / "job" / "where.py").write_text(WHERE)
    runtime_env = {
        "working_dir": str(tmp_path / "job"),
        "env_vars": job_environment("/nowhere", {}),
    }
    code, log = run_to_end(client, head, f"{sys.executable} where.py", "where", runtime_env)
    assert code == 0, log
    rows = {line.split()[0]: line.split()[1:] for line in log.splitlines() if line}
    assert rows["driver"][0] == rows["worker"][0] == "Linux"
    files = rows["driver"][1:] + rows["worker"][1:]
    assert len(files) == 4
    assert all("working_dir_files" in path for path in files), files


def test_ctrl_c_ends_the_following_but_not_the_job(client, head):
    program = (
        "import signal, sys; from cluster.connect import connect; "
        "from cluster.follow import follow; "
        # A test run in the background inherits an ignored Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from mutirao.core.progress import Progress; "
        f"sys.exit(follow(connect({head!r}), 'going-on', {head!r}, Progress()))"
    )
    submit_entrypoint(client, "echo started; exec sleep 60", "going-on", {})
    follower = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, text=True, stdout=-1, stderr=-1
    )
    for line in follower.stdout:
        if line.strip() == "started":
            break
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=30)
    assert follower.returncode == 130
    assert "ray job stop going-on" in errors
    assert "Traceback" not in errors
    assert client.get_job_status("going-on") == "RUNNING"
    client.stop_job("going-on")


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "work"


def submit(recipe, head, workdir):
    command = [sys.executable, "-m", "mutirao.cli.main", "submit", str(recipe), "--address", head]
    command += ["--workdir", str(workdir), "--follow"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["RAY_ADDRESS"] = "http://127.0.0.1:9"  # must not win over --address
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )


def test_a_recipe_runs_on_the_head_and_its_exit_code_comes_back(head, workdir, tmp_path):
    """By the interpreter that has Ray, as far as a damaged source lets it."""
    (tmp_path / "text.jsonl").write_text('{"text": "Um texto."}\n{"text": \n')
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("format: 1\nname: bad\nsources:\n  - path: text.jsonl\n")
    done = submit(recipe, head, workdir)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "invalid-json" in done.stdout + done.stderr
    [run] = (workdir / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["stages"]["ingest"]["status"] == "done"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_recipe_is_run_on_the_head_to_its_end(head, workdir):
    first = submit(TINY, head, workdir)
    assert first.returncode == 0, first.stdout + first.stderr
    [run] = (workdir / "runs").iterdir()
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    job_id = re.search(r"mutirao-[0-9a-f]{12}", first.stderr).group()
    second = submit(TINY, head, workdir)
    assert second.returncode == 0, second.stdout + second.stderr
    assert f"{job_id}-2" in second.stderr
    assert [folder.name for folder in (workdir / "runs").iterdir()] == [run.name]
