"""Clean one document's text: broken encodings, control characters, line ends, runs of blank lines.

In: text as its source holds it. Out: text in Unicode NFC with LF line ends and without control
characters, and what was found. ftfy (Speer 2019, "ftfy", Zenodo) costs 2.4 MB/s, so it runs only
where a regular expression sees a sign of mojibake.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MAX_NUL_SHARE = 0.01  # more NUL characters than this: the document is binary data

# UTF-8 read as Windows-1252: a lead byte's letter followed by a continuation byte's sign.
MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160"
    "\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153"
    "\u017e\u0178]|[\u0080-\u009f]"
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2060\ufeff\ufff9-\ufffb]")
SURROGATE = re.compile("[\ud800-\udfff]")
TRAILING = re.compile("[ \t]+(?=\n|$)")
BLANK_LINES = re.compile("\n{4,}")


@dataclass(frozen=True)
class Cleaned:
    text: str
    repaired: bool = False  # ftfy changed it
    nul: int = 0  # NUL characters taken out
    reason: str = ""  # why it must be rejected: 'empty' or 'nul-bytes'


def clean_text(text: str, repair: bool) -> Cleaned:
    """Deterministic and idempotent on its own output."""
    nul = text.count("\0")
    if nul > MAX_NUL_SHARE * len(text):
        return Cleaned(text, nul=nul, reason="nul-bytes" if text.strip("\0") else "empty")
    if SURROGATE.search(text):  # a pair of escapes is one character, a lone one is none
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    fixed = _repaired(text) if repair and MOJIBAKE.search(text) else text
    tidy = _tidy(fixed)
    return Cleaned(tidy, fixed != text, nul, "" if tidy else "empty")


def _repaired(text: str) -> str:
    """ftfy's decoding repair alone: quotes, ligatures and widths stay as they were written."""
    import ftfy

    config = ftfy.TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        fix_line_breaks=False,
        remove_control_chars=False,
        normalization=None,
        explain=False,
    )
    return ftfy.fix_text(text, config)


def _tidy(text: str) -> str:
    if not text.isascii() or CONTROL.search(text):
        text = CONTROL.sub("", text)
        if not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
    text = TRAILING.sub("", text)
    return BLANK_LINES.sub("\n\n\n", text).strip()
