"""Grams of CO2e per kWh by country: a dated table with source, year and method of each figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("carbon_factors.yaml")


@dataclass(frozen=True)
class Factor:
    g_per_kwh: float
    source: str
    year: int | None
    method: str  # lifecycle, direct, operator

    def __str__(self) -> str:
        year = f", {self.year}" if self.year else ""
        return f"{self.g_per_kwh:g} g/kWh ({self.source}{year}, {self.method})"


def factors(country: str) -> list[Factor]:
    """The default factor of a country (ISO 3166-1 alpha-3) first, then others for the same grid;
    empty for a country that the table doesn't have."""
    table = _table()
    entry = table["countries"].get(country)
    if entry is None:
        return []
    return [_factor(row, table["sources"]) for row in (entry["default"], *entry.get("others", []))]


def countries() -> list[str]:
    return sorted(_table()["countries"])


@cache
def _table() -> dict[str, Any]:
    return yaml.safe_load(TABLE.read_text(encoding="utf-8"))


def _factor(row: dict[str, Any], sources: dict[str, Any]) -> Factor:
    source = sources[row["source"]]
    return Factor(float(row["g_per_kwh"]), source["name"], row["year"], source["method"])
