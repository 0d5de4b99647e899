"""Joules where no counter can be read: codecarbon's model of CPU and memory, else a constant."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

import psutil

from mutirao.core.readings import LIMIT_W, Reading

WATTS_PER_THREAD = 4.0  # codecarbon's figure for a CPU it doesn't know
WATTS_PER_GB = 0.3725  # memory: Lannelongue et al. 2021, Green Algorithms, Adv. Sci. 8, 2100707


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
    machine, read through its public flush and an output handler (1 ms, no network, no file).

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
