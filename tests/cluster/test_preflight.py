"""mutirao doctor: what it finds on this machine, and on machines with one thing wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import machine, preflight
from cluster.preflight import CHECKS, doctor

ROOT = Path(__file__).resolve().parents[2]


def run_doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mutirao.cli.main", "doctor", *arguments]
    merged = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=60)


def test_each_check_has_one_verdict_and_each_problem_a_cure(tmp_path):
    verdicts = doctor(tmp_path)
    assert len(verdicts) == len(CHECKS) == len({v.name for v in verdicts})
    assert not [v for v in verdicts if v.ok != "ok" and not v.cure]
    assert not [v for v in verdicts if "could not be checked" in v.value]


def test_nothing_heavy_is_imported():
    program = (
        "import sys; from pathlib import Path; from cluster.preflight import doctor; "
        "doctor(Path('.')); heavy = {'ray', 'torch', 'deepspeed', 'numpy'}; "
        "print(*sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "\n", result.stderr


def test_the_table_fits_80_columns_and_the_json_says_the_same(tmp_path):
    table = run_doctor("--workdir", str(tmp_path / ("long-name-" * 12)))
    assert max(map(len, table.stdout.splitlines())) <= 80
    rows = json.loads(run_doctor("--workdir", str(tmp_path), "--json").stdout)
    assert [row["name"] for row in rows][:3] == ["Python", "platform", "packages"]
    assert {row["ok"] for row in rows} <= {"ok", "warn", "fail"}


def fake_distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_two_wheels_that_write_fasttext_fail_with_exit_code_4(tmp_path):
    fake_distribution(tmp_path, "fasttext-predict", "0.9.2.4")
    result = run_doctor(PYTHONPATH=str(tmp_path))
    assert result.returncode == 4
    assert "fasttext-numpy2 and fasttext-predict" in result.stdout
    assert "pip uninstall" in result.stdout


def test_an_old_ray_fails(tmp_path, monkeypatch):
    fake_distribution(tmp_path, "ray", "2.9.3")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert preflight.check_ray(tmp_path).ok == "fail"


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A cgroup v2 tree in which this process sits in /job/step."""
    root = tmp_path / "cgroup"
    (root / "job" / "step").mkdir(parents=True)
    (tmp_path / "self").write_text("0::/job/step\n")
    monkeypatch.setattr(machine, "CGROUP", root)
    monkeypatch.setattr(machine, "PROC_CGROUP", tmp_path / "self")
    return root


def test_the_tightest_limit_of_all_cgroups_counts(cgroup, tmp_path):
    (cgroup / "job" / "memory.max").write_text("2000000000\n")
    (cgroup / "job" / "step" / "memory.max").write_text("max\n")
    (cgroup / "job" / "cpu.max").write_text("50000 100000\n")
    (cgroup / "job" / "step" / "cpu.max").write_text("max 100000\n")
    assert machine.memory_bytes()[1] == 2_000_000_000
    assert machine.usable_cpus() == 0.5
    verdict = preflight.check_memory(tmp_path)
    assert (verdict.ok, verdict.value) == ("warn", "2.0 GB (limit of the container)")


def test_without_limits_the_machine_counts(cgroup):
    assert machine.memory_bytes()[1] is None
    assert machine.usable_cpus() == len(os.sched_getaffinity(0))


def test_the_first_version_of_cgroups_is_read_too(cgroup):
    for name, text in (("cpu/cpu.cfs_quota_us", "150000"), ("cpu/cpu.cfs_period_us", "100000")):
        (cgroup / name).parent.mkdir(exist_ok=True)
        (cgroup / name).write_text(text)
    (cgroup / "memory").mkdir()
    (cgroup / "memory" / "memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert machine._cpu_quota() == 1.5
    assert machine.memory_bytes()[1] is None


@pytest.mark.parametrize(
    ("found", "ok"),
    [
        (("Linux", "x86_64"), "ok"),
        (("Darwin", "arm64"), "warn"),
        (("Windows", "x86_64"), "fail"),
        (("Linux", "arm64"), "fail"),
    ],
)
def test_supported_platforms(monkeypatch, tmp_path, found, ok):
    monkeypatch.setattr(machine, "system", lambda: found)
    assert preflight.check_platform(tmp_path).ok == ok


def test_deepspeed_counts_as_built_only_with_a_library(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(machine, "gpus", list)
    verdict = preflight.check_deepspeed(tmp_path)
    assert (verdict.ok, "train_jobs.build_extensions" in verdict.cure) == ("warn", True)
    (tmp_path / "shm").mkdir()
    (tmp_path / "shm" / "shm.so").touch()
    assert preflight.check_deepspeed(tmp_path).ok == "ok"


def test_without_a_compiler_deepspeed_points_to_the_other_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine, "gpus", list)
    verdict = preflight.check_deepspeed(tmp_path)
    assert verdict.ok == "fail"
    assert "train.engine=torch" in verdict.cure


def test_counters_that_only_root_reads_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "RAPL", tmp_path)
    assert machine.rapl() == "none"
    counter = tmp_path / "intel-rapl:0" / "energy_uj"
    counter.parent.mkdir()
    counter.write_text("1")
    assert machine.rapl() == "readable"
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    verdict = preflight.check_energy(tmp_path)
    assert verdict.ok == "warn"
    assert "chmod" in verdict.cure


def test_a_proxy_is_named_without_its_password(monkeypatch, tmp_path):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://ana:hunter2@proxy.example.org:3128")
    verdict = preflight.check_proxies(tmp_path)
    assert verdict.ok == "warn"
    assert "https_proxy" in verdict.value
    assert "hunter2" not in f"{verdict.value}{verdict.cure}"
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert preflight.check_proxies(tmp_path).ok == "ok"


def test_a_file_server_with_another_time_is_a_warning(monkeypatch, tmp_path):
    assert abs(machine.clock_skew_s(tmp_path)) < 5
    monkeypatch.setattr(machine, "clock_skew_s", lambda place: -42.0)
    verdict = preflight.check_clock(tmp_path)
    assert verdict.ok == "warn"
    assert "-42 s" in verdict.value


def test_a_workdir_that_cannot_be_written_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.os, "access", lambda path, mode: False)
    verdict = preflight.check_disk(tmp_path / "not" / "yet" / "there")
    assert verdict.ok == "fail"
    assert str(tmp_path) in verdict.value


def test_a_check_that_breaks_is_a_warning_and_the_rest_goes_on(monkeypatch, tmp_path):
    def check_nothing(workdir):
        raise OSError("no such device")

    monkeypatch.setattr(preflight, "CHECKS", (check_nothing, preflight.check_python))
    verdicts = doctor(tmp_path)
    assert [v.ok for v in verdicts] == ["warn", "ok"]
    assert "no such device" in verdicts[0].value
