"""Amounts in a few characters: the words of progress lines, `runs show` and the report."""

from __future__ import annotations

J_PER_KWH = 3.6e6


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent: 0.00123, 12.3, 1,230."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    places = digits - 1 - int(text.partition("e")[2])
    return f"{float(text):,.{max(0, places)}f}"


def kwh(energy_j: float) -> str:
    return f"{significant(energy_j / J_PER_KWH)} kWh"


def electricity(energy_j: float) -> str:
    """For a narrow place: kWh, or Wh where a kWh figure would be a row of zeros."""
    if energy_j < J_PER_KWH / 100:
        return f"{significant(energy_j / 3600)} Wh"
    return kwh(energy_j)


def left(wall_s: float) -> str:
    """Of a time to come, two units at most: 40 s, 12 min, 3 h 20 min, 5 d 7 h."""
    if wall_s < 100:
        return f"{wall_s:.0f} s"
    minutes = round(wall_s / 60)
    if minutes < 100:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(minutes / 60)
    return f"{hours // 24} d {hours % 24} h" if hours < 240 else f"{hours // 24} d"
