"""Counters that wrap, reset, vanish or lie; GPUs through a made-up NVML; codecarbon for real."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from mutirao.core import probes
from mutirao.core.estimates import Codecarbon, Constant
from mutirao.core.probes import Counter, Counters, Nvml, choose, rapl_counters


def counter(values: list, device: str = "cpu:package-0", wrap_j: float | None = None) -> Counter:
    left = iter(values)

    def read() -> float:
        value = next(left)
        if isinstance(value, Exception):
            raise value
        return value

    return Counter(device, read, "rapl", "test", wrap_j)


def steps(values: list, **more) -> list:
    """Readings of a counter that is looked at once a second."""
    probe = Counters([counter(values, **more)], now=100.0)
    return [reading for t in range(1, len(values)) for reading in probe.read(100.0 + t)]


def test_a_counter_gives_the_joules_between_looks():
    assert [r.energy_j for r in steps([5.0, 25.0, 60.0])] == [20.0, 35.0]


def test_a_counter_that_wraps_goes_on():
    assert [r.energy_j for r in steps([990.0, 20.0, 50.0], wrap_j=1000.0)] == [30.0, 30.0]


@pytest.mark.parametrize("wrap_j", [None, 1e6])
def test_a_counter_that_was_reset_is_a_gap(wrap_j):
    first, second = steps([5000.0, 20.0, 50.0], wrap_j=wrap_j)
    assert first.energy_j is None and "reset" in first.reason
    assert second.energy_j == 30.0


def test_more_watts_than_hardware_can_draw_is_a_gap():
    first, second = steps([0.0, 1e6, 1e6 + 40])
    assert first.energy_j is None and "impossible" in first.reason
    assert second.energy_j == 40


def test_a_counter_that_cannot_be_read_for_a_while_is_a_gap_until_it_can():
    readings = steps([0.0, OSError("gone"), 50.0, 80.0])
    assert [r.energy_j for r in readings] == [None, None, 30.0]
    assert "gone" in readings[0].reason


def zone(root, name: str, label: str, uj: int = 0, range_uj: int = 10**9):
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
    return folder


def test_rapl_takes_packages_and_dram_once(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", "package-1")
    zone(tmp_path, "intel-rapl:0:0", "dram")
    zone(tmp_path, "intel-rapl:0:1", "core")
    zone(tmp_path, "intel-rapl:2", "psys")
    zone(tmp_path, "intel-rapl-mmio:0", "package-0")
    counters, warnings = rapl_counters(tmp_path)
    assert [c.device for c in counters] == ["cpu:package-0", "ram:package-0", "cpu:package-1"]
    assert warnings == []
    probe = Counters(counters, now=1.0)
    (first / "energy_uj").write_text("3500000")
    assert [r.energy_j for r in probe.read(2.0)] == [2.5, 0.0, 0.0]


def test_rapl_for_root_only_is_said_and_not_read(tmp_path, monkeypatch):
    folder = zone(tmp_path, "intel-rapl:0", "package-0")
    os.chmod(folder / "energy_uj", 0o400)
    monkeypatch.setattr(probes.os, "access", lambda path, mode: False)  # also where root runs this
    counters, warnings = rapl_counters(tmp_path)
    assert counters == [] and "only root may read" in warnings[0]


def test_no_counter_and_no_estimate_asked_for_is_a_warning(tmp_path):
    found, _, warnings = choose("counters", "BRA", None, 1.0, tmp_path / "nothing")
    assert [r for probe in found for r in probe.read(2.0)] == []
    assert "no readable energy counter for cpu and ram" in warnings[-1]


def test_a_package_counter_leaves_only_memory_to_the_estimate(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0")
    found, _, _ = choose("constant", "BRA", None, 1.0, tmp_path)
    assert "constant" in {r.method for probe in found for r in probe.read(2.0)}
    found, _, _ = choose("auto", "BRA", None, 1.0, tmp_path)
    estimate = found[1]
    assert isinstance(estimate, Codecarbon) and estimate.devices == ("ram",)
    estimate.thread.join()


def test_constant_watts_are_the_ones_given(tmp_path):
    found, _, _ = choose("constant", "BRA", 95.0, 10.0, tmp_path)
    readings = {r.device: r for probe in found for r in probe.read(12.0)}
    assert readings["cpu"].energy_j == pytest.approx(190)
    assert not readings["cpu"].measured and readings["ram"].energy_j > 0


class FakeNvml:
    """Two GPUs: one with an energy counter, one from before Volta."""

    def __init__(self):
        self.millijoules = 1000

    def nvmlInit(self):
        pass

    def nvmlSystemGetDriverVersion(self):
        return b"570.0"

    def nvmlDeviceGetCount(self):
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}aaa"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if handle == 1:
            raise RuntimeError("Not Supported")
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return [SimpleNamespace(pid=77)] if handle == 0 else []


def test_gpu_joules_come_from_the_boards_counter():
    library = FakeNvml()
    nvml = Nvml(library)
    counters, warnings = nvml.counters()
    assert "GPU-1aaa has no energy counter" in warnings[0]
    probe = Counters(counters, now=1.0)
    library.millijoules += 250_000
    (reading,) = probe.read(2.0)
    assert (reading.device, reading.energy_j, reading.measured) == ("gpu:GPU-0aaa", 250.0, True)
    assert nvml.users() == {77: {"GPU-0aaa"}}


@pytest.mark.parametrize(
    ("variable", "uuids"),
    [
        (None, ()),
        ("", ()),
        ("1", ("GPU-1aaa",)),
        ("1,0", ("GPU-0aaa", "GPU-1aaa")),
        ("GPU-0", ("GPU-0aaa",)),
        ("7", ()),
        ("-1", ()),
    ],
)
def test_cuda_visible_devices_names_gpus_by_number_or_uuid(variable, uuids):
    assert Nvml(FakeNvml()).visible(variable) == uuids


def test_codecarbon_estimates_cpu_and_memory_without_network_or_file(tmp_path, monkeypatch):
    import socket

    def no_network(*_):
        raise AssertionError("codecarbon asked the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setenv("SLURM_JOB_ID", "1")  # would make it count the memory of a whole job
    monkeypatch.setenv("CODECARBON_PUE", "9")
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    probe = Codecarbon(("cpu", "ram"), "BRA", 50.0, now=0.0)
    assert probe.read(0.01) == []
    probe.thread.join()
    time.sleep(0.3)
    readings = probe.read(time.monotonic() - began)
    assert probe.warnings == []
    cpu = [r for r in readings if r.device == "cpu"]
    assert [r.method for r in cpu] == ["codecarbon:first_value", "codecarbon:cpu_load"]
    assert cpu[0].t0 == 0.0 and cpu[0].t1 == cpu[1].t0  # nothing before its start is lost
    watts = cpu[1].energy_j / (cpu[1].t1 - cpu[1].t0)
    assert 4.0 < watts < 80.0 and not cpu[1].measured
    assert list(tmp_path.iterdir()) == []
    time.sleep(0.2)
    later = probe.read(time.monotonic() - began)
    assert {r.method for r in later} == {"codecarbon:cpu_load", "codecarbon:ram_model"}
    assert all(r.t0 == cpu[1].t1 for r in later)


def test_a_codecarbon_that_fails_is_replaced_by_a_constant_from_the_beginning(monkeypatch):
    monkeypatch.setattr(Codecarbon, "_tracker", lambda self, country: 1 / 0)
    probe = Codecarbon(("cpu",), "BRA", 10.0, now=0.0)
    probe.thread.join()
    (reading,) = probe.read(5.0)
    assert (reading.energy_j, reading.method, reading.t0) == (50.0, "constant", 0.0)
    assert any("codecarbon failed" in line for line in probe.warnings)


def test_a_run_shorter_than_codecarbons_start_is_a_gap(monkeypatch):
    monkeypatch.setattr(Codecarbon, "_tracker", lambda self, country: time.sleep(0.2))
    probe = Codecarbon(("cpu",), "BRA", None, now=0.0)
    (gap,) = probe.unfinished(1.0)
    assert gap.energy_j is None and "before codecarbon" in gap.reason
    probe.thread.join()


def test_constant_reads_follow_one_another():
    probe = Constant({"cpu": 10.0}, now=0.0)
    assert [probe.read(t)[0].energy_j for t in (1.0, 4.0)] == [10.0, 30.0]
