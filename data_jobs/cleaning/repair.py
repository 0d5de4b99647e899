"""Broken characters of one text: wrong decodings, lost letters, control and invisible characters.

In: a text. Out: the text in Unicode NFC with LF line ends, without characters that nobody sees.
Each function is one repair; each sign says where it may have work. ftfy (Speer 2019, "ftfy",
Zenodo) costs 2.4 MB/s, so it runs only where a regular expression sees mojibake.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache

MAX_NUL_SHARE = 0.01  # more NUL characters than this: the document is binary data
# More letters lost than this: in Portuguese 3 % of the letters carry an accent, so a text that was
# decoded wrongly lies far above, and one that lost a letter here and there below.
MAX_LOST_SHARE, MIN_LOST = 0.005, 3

# UTF-8 read as Windows-1252: the letter of a lead byte followed by the signs of one, two or three
# continuation bytes; a quotation mark has lost its last one.
CONTINUED = (
    "[\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
)
MOJIBAKE = re.compile(
    f"[\u00c2-\u00df]{CONTINUED}|[\u00e0-\u00ef]{CONTINUED}{{2}}|[\u00f0-\u00f4]{CONTINUED}{{3}}"
    "|\u00e2\u20ac|[\u0080-\u009f]"
)
LOST = "\ufffd"
PAGE_BREAK = re.compile("[\x0b\x0c\x1c-\x1e\u2028\u2029]")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u2060\ufeff\ufff9-\ufffb]")
CONTROL_SIGN = (
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200d\u2028\u2029\u2060\ufeff\ufff9-\ufffb]"
)
# Joiners shape Arabic, Indic and other scripts and bind emoji; between Latin, Greek or Cyrillic
# letters they are waste of a web page. U+200B parts words in scripts of South-East Asia.
SHAPED = "\u0590-\u1fff\u2190-\u2bff\u3000-\ud7ff\ufe00-\ufe0f\ufb1d-\ufefe\U00010000-\U000fffff"
JOINER = re.compile(f"(?<![{SHAPED}])[\u200c\u200d]+(?![{SHAPED}])")
UNSPACED = "\u0e00-\u109f\u1780-\u17ff\u1980-\u1aaf"
ZERO_SPACE = re.compile(f"(?<![{UNSPACED}])\u200b+(?![{UNSPACED}])")
TRAILING = re.compile("(?<![ \t])[ \t]++(?=\n|$)")
BLANK_LINES = re.compile("\n{4,}")
TIDY_SIGN = "[ \t]\n|\n\n\n\n"
DAMAGED_WORD = re.compile(f"[^\\W\\d_]*(?:{LOST}[^\\W\\d_]*)+")
WORD = re.compile(r"[^\W\d_]+")


def is_binary(text: str) -> bool:
    return text.count("\0") > MAX_NUL_SHARE * len(text)


def paired_surrogates(text: str, counts: Counter[str]) -> str:
    """A pair of surrogates is one character, a lone one is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def line_ends(text: str, counts: Counter[str]) -> str:
    return PAGE_BREAK.sub("\n", text.replace("\r\n", "\n").replace("\r", "\n"))


def decoded(text: str, counts: Counter[str]) -> str:
    """ftfy's decoding repair alone: quotes, ligatures and widths stay as they were written."""
    if not MOJIBAKE.search(text):
        return text
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
    fixed = ftfy.fix_text(text, config)
    counts["repaired"] += fixed != text
    return fixed


def found_again(text: str, counts: Counter[str]) -> str:
    """Words with lost letters, where the text elsewhere holds exactly one word that fits."""
    if LOST not in text:
        return text
    known: dict[int, set[str]] = {}
    for word in set(WORD.findall(text)):
        known.setdefault(len(word), set()).add(word)

    def whole(found: re.Match[str]) -> str:
        damaged = found.group()
        if len(damaged.replace(LOST, "")) < 2:
            return damaged
        shape = re.compile(damaged.replace(LOST, "[^\x00-\x7f]"))
        fits = [word for word in known.get(len(damaged), ()) if shape.fullmatch(word)]
        counts["letters_found"] += len(fits) == 1
        return fits[0] if len(fits) == 1 else damaged

    return DAMAGED_WORD.sub(whole, text)


def is_lost(text: str) -> bool:
    """So many letters are replaced by U+FFFD that the text cannot be read."""
    lost = text.count(LOST)
    return lost >= MIN_LOST and lost > MAX_LOST_SHARE * len(text)


def visible(text: str, counts: Counter[str]) -> str:
    """Without control characters and without joiners that join nothing."""
    nul = text.count("\0")
    if nul:
        counts["nul_characters"] += nul
    text = CONTROL.sub("", text)
    return ZERO_SPACE.sub("", JOINER.sub("", text))


def composed(text: str, counts: Counter[str]) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def tidy(text: str, counts: Counter[str]) -> str:
    """No blanks at line ends, no more than two blank lines in a row."""
    return BLANK_LINES.sub("\n\n\n", TRAILING.sub("", text))


def trimmed(text: str, counts: Counter[str]) -> str:
    """No blanks and blank lines at the ends of the text.

    The first line keeps its indentation where another line has the same: it is code or verse.
    """
    text = text.rstrip()
    start = text.rfind("\n", 0, len(text) - len(text.lstrip())) + 1
    body = text[start:]
    indent = body[: len(body) - len(body.lstrip())]
    return body if indent and f"\n{indent}" in body else body.lstrip()


@cache
def nfc_sign() -> str:
    """A class of all characters that NFC may change, or that may change with the one before."""
    points: set[int] = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul by rule
    for point in (*range(0x300, 0xAC00), *range(0xF900, 0x1F000), *range(0x2F800, 0x2FA1E)):
        character = chr(point)
        decomposition = unicodedata.decomposition(character)
        if decomposition and decomposition[0] != "<":
            parts = decomposition.split()
            points.update(int(part, 16) for part in parts[1:])
            if unicodedata.normalize("NFC", character) != character:
                points.add(point)
        if unicodedata.combining(character):
            points.add(point)
    return "[" + "".join(map(_escaped, _ranges(sorted(points)))) + "]"


def _ranges(points: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for point in points:
        if ranges and point == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], point)
        else:
            ranges.append((point, point))
    return ranges


def _escaped(edge: tuple[int, int]) -> str:
    first, last = map(chr, edge)
    return first if first == last else f"{first}-{last}"
