"""The recipe that the end-to-end tests run."""

from pathlib import Path

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "tiny.yaml"
