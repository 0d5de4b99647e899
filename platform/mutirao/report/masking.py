"""Personal data out of sample text: e-mail, telephone, CPF, CNPJ and IP addresses become `[kind]`.

A model may have learnt an address or a number by heart; a report is a page that people pass on. The
patterns prefer to mask too much: any bare run of 10 to 14 digits goes. A number that is spelled out
or cut by words is not found.
"""

from __future__ import annotations

import re

# New CNPJ may hold letters since July 2026 (Receita Federal, IN RFB 2.229/2024).
_YEARS = r"(?!(?:1\d|20)\d\d[-–](?:1\d|20)\d\d\b)"  # 1990-2000 is not a telephone
PATTERNS: tuple[tuple[str, str], ...] = (
    ("e-mail", r"[\w.+%-]+\s?@\s?[\w-]+(?:\.[\w-]+)+"),
    ("CNPJ", r"\b[\dA-Z]{2}\.[\dA-Z]{3}\.[\dA-Z]{3}/[\dA-Z]{4}-\d{2}\b|\b\d{8}/?\d{4}-?\d{2}\b"),
    ("CPF", r"\b\d{3}\.\d{3}\.\d{3}[-./ ]?\d{2}\b|\b\d{9}-\d{2}\b|(?<![\d+])\d{11}(?!\d)"),
    ("IP", r"\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}\b"),
    ("IP", r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])"),
    ("telephone", r"(?<!\w)\+\d{1,3}(?:[\s.-]?\(?\d{1,5}\)?){2,5}(?!\d)"),
    ("telephone", r"(?<!\w)\(?0?\d{2}\)\s?9?\s?\d{4}[-.\s]?\d{4}\b"),
    ("telephone", rf"\b0?\d{{2,4}}[\s.-]{_YEARS}\d{{3,5}}[\s.-]\d{{4}}\b"),
    ("telephone", rf"\b9\d{{4}}-\d{{4}}\b|\b{_YEARS}[2-5]\d{{3}}-\d{{4}}\b"),
    ("telephone", r"(?<![\d.])\d{10,14}(?![\d])"),
)
_ANY = re.compile("|".join(f"(?P<k{i}>{pattern})" for i, (_, pattern) in enumerate(PATTERNS)))


def mask(text: str) -> str:
    """The text with every match replaced by its kind in brackets."""
    return _ANY.sub(lambda match: f"[{kind_of(match)}]", text)


def mask_pair(prompt: str, continuation: str) -> tuple[str, str]:
    """Both masked as one text; what runs across the border is marked in the prompt."""
    whole, border = prompt + continuation, len(prompt)
    halves, cursor = ["", ""], 0
    for match in _ANY.finditer(whole):
        _share(halves, whole, cursor, match.start(), border)
        halves[match.start() >= border] += f"[{kind_of(match)}]"
        cursor = match.end()
    _share(halves, whole, cursor, len(whole), border)
    return halves[0], halves[1]


def kind_of(match: re.Match[str]) -> str:
    assert match.lastgroup is not None
    return PATTERNS[int(match.lastgroup[1:])][0]


def _share(halves: list[str], whole: str, start: int, end: int, border: int) -> None:
    halves[0] += whole[start : max(start, min(end, border))]
    halves[1] += whole[max(start, border) : end] if end > border else ""
