"""Where joules come from: NVML and RAPL counters, codecarbon's model, a constant.

A probe's `read(now)` gives one reading per device for the time since its last read. Counters come
first (`choose`): NVML for GPUs, RAPL for packages and memory; what has no counter is estimated by
codecarbon, and by a constant where codecarbon fails. An impossible value (a counter that went back,
more watts than hardware can draw) becomes a gap with its reason, never joules.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

POWERCAP = Path("/sys/class/powercap")
LIMIT_W = {"cpu": 3000.0, "ram": 2000.0, "gpu": 3000.0}  # no machine of today draws more
WATTS_PER_THREAD = 4.0  # codecarbon's figure for a CPU it doesn't know
WATTS_PER_GB = 0.3725  # memory: Lannelongue et al. 2021, Green Algorithms, Adv. Sci. 8, 2100707


@dataclass(frozen=True)
class Reading:
    device: str
    t0: float
    t1: float
    energy_j: float | None  # None: unknown, see reason
    method: str = ""
    measured: bool = False
    tool: str = ""
    reason: str = ""


class Probe(Protocol):
    warnings: list[str]

    def read(self, now: float) -> list[Reading]: ...

    def unfinished(self, now: float) -> list[Reading]:
        """At the end: the time that a probe still owed a value for, as gaps."""


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
            warnings.append(
                f"RAPL ({device}) exists, but {zone}/energy_uj may be read by root only"
            )
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
            counters.append(
                Counter(f"gpu:{uuid}", lambda h=handle: self._joules(h), "nvml_counter", self.tool)
            )
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
        """The uuids that a CUDA_VISIBLE_DEVICES names; none if it is unset (it then claims nothing)."""
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


class Constant:
    """Flat watts per device class: the last resort."""

    def __init__(self, watts: dict[str, float], now: float):
        self.watts, self.last = watts, now
        self.warnings = [
            f"{device}: a constant {power:g} W is assumed" for device, power in watts.items()
        ]

    def read(self, now: float) -> list[Reading]:
        t0, self.last = self.last, now
        return [
            Reading(device, t0, now, power * (now - t0), "constant", False, f"{power:g} W")
            for device, power in self.watts.items()
        ]

    def unfinished(self, now: float) -> list[Reading]:
        return []


def constant_watts(devices: tuple[str, ...], cpu_watts: float | None) -> dict[str, float]:
    gigabytes = psutil.virtual_memory().total / 1e9
    known = {
        "cpu": cpu_watts or WATTS_PER_THREAD * (os.cpu_count() or 1),
        "ram": round(WATTS_PER_GB * gigabytes, 3),
    }
    return {device: known[device] for device in devices}


class Codecarbon:
    """codecarbon's OfflineEmissionsTracker for the devices without a counter: one tracker per
    machine, read through its public flush and an output handler of ours (1 ms, no network, no file).

    It takes 2 to 3 s to start, in a thread. The time before its first value isn't lost: the first
    value's watts stand in for it, in a row of its own (method `codecarbon:first_value`). If it does
    not start, a constant takes its place from the beginning.
    """

    def __init__(self, devices: tuple[str, ...], country: str, cpu_watts: float | None, now: float):
        self.devices, self.cpu_watts = devices, cpu_watts
        self.warnings: list[str] = []
        self.started = self.last = now
        self.total: Any = None  # codecarbon's EmissionsData, handed over at each flush
        self.before = dict.fromkeys(devices, 0.0)
        self.tracker: Any = None
        self.method = self.tool = ""
        self.measured = False
        self.constant: Constant | None = None
        self.thread = threading.Thread(target=self._start, args=(country,), daemon=True)
        self.thread.start()

    def read(self, now: float) -> list[Reading]:
        if self.constant:
            return self.constant.read(now)
        if self.thread.is_alive():
            return []
        try:
            if self.tracker is None:
                raise RuntimeError("it did not start")
            self.tracker.flush()
            energy = {device: self._joules(device) for device in self.devices}
        except Exception as error:  # whatever it is, the run goes on and the ledger says so
            self.constant = Constant(constant_watts(self.devices, self.cpu_watts), self.last)
            self.warnings.append(f"codecarbon failed ({error}): constant watts are used instead")
            return self.constant.read(now)
        readings = [self._reading(device, now, energy[device]) for device in self.devices]
        if self.last == self.started:
            readings = [part for reading in readings for part in self._since_start(reading)]
        self.last, self.before = now, energy
        return readings

    def unfinished(self, now: float) -> list[Reading]:
        if self.constant or self.last > self.started:
            return []
        reason = "the run ended before codecarbon had started (2 to 3 s)"
        return [Reading(device, self.started, now, None, reason=reason) for device in self.devices]

    def _reading(self, device: str, now: float, total_j: float) -> Reading:
        t0 = self.last
        if self.last == self.started:  # the tracker has counted since it was ready, not longer
            t0 = max(self.started, now - self.total.duration)
        energy, method = total_j - self.before[device], f"codecarbon:{self.method}"
        limit_j = LIMIT_W[device] * (now - t0)
        if not 0 <= energy <= limit_j:
            return Reading(device, t0, now, None, reason=f"impossible: {energy:,.0f} J")
        method = method if device == "cpu" else "codecarbon:ram_model"
        return Reading(
            device, t0, now, energy, method, self.measured and device == "cpu", self.tool
        )

    def _since_start(self, first: Reading) -> list[Reading]:
        if first.energy_j is None or first.t1 <= first.t0:
            return [first]
        watts = first.energy_j / (first.t1 - first.t0)
        energy = watts * (first.t0 - self.started)
        method = "codecarbon:first_value"
        early = Reading(first.device, self.started, first.t0, energy, method, False, self.tool)
        return [early, first]

    def _joules(self, device: str) -> float:
        kwh = self.total.cpu_energy if device == "cpu" else self.total.ram_energy
        return kwh * 3.6e6

    def _start(self, country: str) -> None:
        try:
            self.tracker = self._tracker(country)
        except Exception as error:
            self.warnings.append(f"codecarbon: {error}")

    def _tracker(self, country: str) -> Any:
        # In a Slurm job codecarbon takes the memory of the whole job, over all nodes, for this one.
        for name in [n for n in os.environ if n.startswith(("SLURM_", "CODECARBON_"))]:
            del os.environ[name]
        logging.getLogger("codecarbon").setLevel(logging.ERROR)
        import codecarbon
        from codecarbon.output_methods.base_output import BaseOutput

        probe = self

        class Handler(BaseOutput):
            def out(self, total: Any, delta: Any) -> None:
                probe.total = total

        tracker = codecarbon.OfflineEmissionsTracker(
            country_iso_code=country,
            tracking_mode="machine",
            measure_power_secs=86_400,  # we ask: at each interval, by flush
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[Handler()],
            emissions_endpoint=None,
            electricitymaps_api_token=None,
            force_cpu_power=self.cpu_watts,  # at full load; codecarbon scales it with the load
            force_ram_power=None,
            pue=1.0,
            wue=0.0,
            log_level="error",
            allow_multiple_runs=True,
        )
        tracker.start()
        modes = [getattr(part, "_mode", "") for part in getattr(tracker, "_hardware", [])]
        self.method = next((mode for mode in modes if mode), "unknown")
        self.measured = self.method in ("intel_rapl", "windows_emi", "apple_powermetrics")
        self.tool = f"codecarbon {codecarbon.__version__}"
        return tracker
