"""docs/reference/commands.md is what the commands say of themselves."""

from pathlib import Path

from mutirao.cli.reference import helps, reference

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_in_the_docs_is_the_help_of_today():
    written = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    assert written == reference(), "python -m mutirao.cli.reference > docs/reference/commands.md"


def test_every_help_fits_80_columns():
    wide = {name: line for name, text in helps() for line in text.splitlines() if len(line) > 80}
    assert wide == {}
