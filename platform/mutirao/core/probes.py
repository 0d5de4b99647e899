"""Where joules come from: NVML and RAPL counters, else an estimate (`estimates`).

A probe's `read(now)` gives one reading per device for the time since its last read. Counters come
first (`choose`): NVML for GPUs, RAPL for packages and memory; what has no counter is estimated by
codecarbon, and by a constant where codecarbon fails. An impossible value (a counter that went back,
more watts than hardware can draw) becomes a gap with its reason, never joules.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mutirao.core.estimates import Codecarbon, Constant, constant_watts
from mutirao.core.readings import LIMIT_W, Probe, Reading

POWERCAP = Path("/sys/class/powercap")


@dataclass
class Counter:
    """A rising counter of joules. read: its value now; wrap_j: where it starts again at zero."""

    device: str
    read: Callable[[], float]
    method: str
    tool: str
    wrap_j: float | None = None
    value: float | None = None
    at: float = 0.0

    def step(self, now: float) -> Reading | None:
        """The joules since the last step; None at the first."""
        before, t0 = self.value, self.at
        self.at = now
        try:
            self.value = self.read()
        except Exception as error:  # NVML and sysfs raise what they like
            self.value = None
            return self._gap(t0, now, f"{self.method} cannot be read: {error}") if t0 else None
        if before is None:
            return self._gap(t0, now, f"{self.method} could be read again") if t0 else None
        energy = self.value - before
        limit_j = LIMIT_W[self.device.split(":")[0]] * (now - t0)
        if energy < 0 and self.wrap_j and energy + self.wrap_j <= limit_j:
            energy += self.wrap_j
        if energy < 0:
            return self._gap(t0, now, "the counter went back (reset)")
        if energy > limit_j:
            watts = energy / max(now - t0, 1e-9)
            return self._gap(t0, now, f"impossible: {watts:,.0f} W")
        return Reading(self.device, t0, now, energy, self.method, True, self.tool)

    def _gap(self, t0: float, t1: float, reason: str) -> Reading:
        return Reading(self.device, t0, t1, None, reason=reason)


class Counters:
    """A probe over a list of counters."""

    def __init__(self, counters: list[Counter], now: float, warnings: list[str] | None = None):
        self.counters = counters
        self.warnings = warnings or []
        self.read(now)

    def read(self, now: float) -> list[Reading]:
        steps = [counter.step(now) for counter in self.counters]
        return [reading for reading in steps if reading]

    def unfinished(self, now: float) -> list[Reading]:
        return []


def rapl_counters(root: Path = POWERCAP) -> tuple[list[Counter], list[str]]:
    """Package and DRAM zones (Intel, and AMD since Linux 5.8). Each zone name counts once: `mmio`
    twins and `psys`, core and uncore zones lie inside or over the packages."""
    counters: dict[str, Counter] = {}
    warnings: list[str] = []
    for zone in sorted(root.glob("intel-rapl:*")) if root.exists() else []:
        try:
            name = (zone / "name").read_text().strip()
        except OSError:
            continue
        if name.startswith("package"):
            device = f"cpu:{name}"
        elif name == "dram":
            device = f"ram:{_package_of(root, zone)}"
        else:
            continue
        if not os.access(zone / "energy_uj", os.R_OK):
            warnings.append(f"RAPL ({device}) is there, but only root may read {zone}/energy_uj")
            continue
        counters.setdefault(device, _rapl_counter(zone, device))
    return list(counters.values()), warnings


def _package_of(root: Path, zone: Path) -> str:
    parent = root / zone.name.rsplit(":", 1)[0]
    try:
        return (parent / "name").read_text().strip()
    except OSError:
        return zone.name


def _rapl_counter(zone: Path, device: str) -> Counter:
    try:
        wrap: float | None = int((zone / "max_energy_range_uj").read_text()) / 1e6
    except (OSError, ValueError):
        wrap = None
    return Counter(
        device, lambda: int((zone / "energy_uj").read_text()) / 1e6, "rapl", "linux powercap", wrap
    )


class Nvml:
    """GPUs of this machine: energy counters, and which process computes on which."""

    def __init__(self, library: Any):
        self.library = library
        library.nvmlInit()
        self.handles = {}
        for index in range(library.nvmlDeviceGetCount()):
            handle = library.nvmlDeviceGetHandleByIndex(index)
            self.handles[_text(library.nvmlDeviceGetUUID(handle))] = handle
        self.tool = f"nvml {_text(library.nvmlSystemGetDriverVersion())}"

    @classmethod
    def open(cls) -> Nvml | None:
        """None where there is no NVIDIA driver."""
        try:
            import pynvml

            return cls(pynvml)
        except Exception:  # no library, no driver, no permission: all mean no NVIDIA GPU for us
            return None

    def counters(self) -> tuple[list[Counter], list[str]]:
        counters, warnings = [], []
        for uuid, handle in self.handles.items():
            try:
                self.library.nvmlDeviceGetTotalEnergyConsumption(handle)
            except Exception as error:  # before Volta there is no counter
                warnings.append(f"GPU {uuid} has no energy counter ({error}): a gap in the ledger")
                continue
            read = partial(self._joules, handle)
            counters.append(Counter(f"gpu:{uuid}", read, "nvml_counter", self.tool))
        return counters, warnings

    def users(self) -> dict[int, set[str]]:
        """pid -> uuids of the GPUs it computes on. Empty in a container with its own pids."""
        found: dict[int, set[str]] = {}
        for uuid, handle in self.handles.items():
            try:
                processes = self.library.nvmlDeviceGetComputeRunningProcesses(handle)
            except Exception:
                continue
            for process in processes:
                found.setdefault(process.pid, set()).add(uuid)
        return found

    def visible(self, variable: str | None) -> tuple[str, ...]:
        """The uuids that a CUDA_VISIBLE_DEVICES names; unset, it claims nothing."""
        uuids = list(self.handles)
        found = []
        for item in (variable or "").split(","):
            item = item.strip()
            if item.isdigit() and int(item) < len(uuids):
                found.append(uuids[int(item)])
            elif item:
                found += [uuid for uuid in uuids if uuid.startswith(item)]
        return tuple(sorted(set(found)))

    def _joules(self, handle: Any) -> float:
        return self.library.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def choose(
    meter: str, country: str, cpu_watts: float | None, now: float, rapl_root: Path = POWERCAP
) -> tuple[list[Probe], Nvml | None, list[str]]:
    """The probes for a recipe's `energy.meter`, the GPUs if there are any, and warnings."""
    nvml = Nvml.open()
    counters, warnings = nvml.counters() if nvml else ([], [])
    if meter in ("auto", "counters"):
        found, said = rapl_counters(rapl_root)
        counters, warnings = counters + found, warnings + said
    have = {counter.device.split(":")[0] for counter in counters}
    missing = tuple(device for device in ("cpu", "ram") if device not in have)
    probes: list[Probe] = [Counters(counters, now)]
    if missing and meter == "counters":
        warnings.append(
            f"no readable energy counter for {' and '.join(missing)}: not in the ledger"
        )
    elif missing and meter == "constant":
        probes.append(Constant(constant_watts(missing, cpu_watts), now))
    elif missing:
        probes.append(Codecarbon(missing, country, cpu_watts, now))
    return probes, nvml, warnings
