"""What the tests of evaluation sets share."""

from __future__ import annotations

SHIPPED = ("faquad", "told_br", "ud_portuguese_bosque")


def numbered(first: int, count: int) -> str:
    return " ".join(f"palavra{k}" for k in range(first, first + count))
