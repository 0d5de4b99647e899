"""Whether a number in a text is what it looks like: check digits, codes that exist, words.

In: the characters found, what stands before them in their line (up to 60 characters), the match.
Out: whether to mask them. Sources: the algorithms of Receita Federal (CPF; CNPJ, alphanumeric since
July 2026), of the Spanish interior ministry (DNI, NIE), Anatel's area codes, ITU-T E.164.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

Check = Callable[[str, str, re.Match[str]], bool]

FILE_ENDS = ("png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "html", "pdf", "zip")


def email(value: str, before: str, found: re.Match[str]) -> bool:
    """Not a repository (git@...), a file (logo@2x.png) or the login of a URL (ftp://user:pass@...)."""
    if re.search(r"://[^\s/@]*$", before):
        return False
    return not value.startswith("git@") and value.rpartition(".")[2].lower() not in FILE_ENDS


# Addresses of nobody: RFC 1122, 1918, 3927, 6598, multicast and reserved.
NOBODY = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/3"),
    )
)
IP_WORD = re.compile(
    r"\bIPs?(?:v4)?\b|endere[çc]|address|direcci|adre[çc]|host|servidor|server|://|ping|dns", re.I
)
VERSION_WORD = re.compile(
    r"(?:vers|release|build|firmware|\bv|\bart|se[çc]|cap[íi]t|item|§)[^,;:()]{0,20}$", re.I
)


def ipv4(value: str, before: str, found: re.Match[str]) -> bool:
    """An address of somebody and no version: three figures twice, or a word of addresses."""
    parts = value.split(".")
    after = found.string[found.end() : found.end() + 2]
    if any(int(part) > 255 or part != str(int(part)) for part in parts):
        return False
    if before[-1:] in (".", "-") or re.match(r"[.\-][0-9A-Za-z]", after):
        return False
    if any(ipaddress.ip_address(value) in network for network in NOBODY):
        return False
    if IP_WORD.search(before):
        return True
    return sum(len(part) == 3 for part in parts) >= 2 and not VERSION_WORD.search(before)


def ipv6(value: str, before: str, found: re.Match[str]) -> bool:
    try:
        address = ipaddress.IPv6Address(value)
    except ValueError:
        return False
    return address in ipaddress.ip_network("2000::/3")


# Two first digits of country codes that E.164 has not given out.
NO_COUNTRY = ("28", "83", "89")
EXACT_LENGTH = {"55": (12, 13), "351": (12,), "34": (11,), "1": (11,)}  # digits, code included


def e164(value: str, before: str, found: re.Match[str]) -> bool:
    digits = only_digits(value)
    if re.search(r"[0-9A-Za-z)\]]\s*$", before[-4:]) and before[-1:] != " ":  # a sum
        return False
    if re.fullmatch(r"\+[0-9]{4,6}-[0-9]{2}-[0-9]{2}", value):  # a date far away (ISO 8601)
        return False
    for code, lengths in EXACT_LENGTH.items():
        if digits.startswith(code):
            return len(digits) in lengths
    return 9 <= len(digits) <= 15 and digits[0] != "0" and digits[:2] not in NO_COUNTRY


# Area codes of Brazil; a mobile number has nine digits and begins with 9.
ALL = "123456789"
AREAS_BR = frozenset(
    f"{tens}{units}"
    for tens, of_tens in enumerate(
        ("", ALL, "12478", "1234578", ALL, "1345", ALL, "134579", ALL, ALL)
    )
    for units in of_tens
)


def phone_br(value: str, before: str, found: re.Match[str]) -> bool:
    digits = only_digits(value).removeprefix("0")
    number = digits[2:]
    mobile = len(number) == 9 and number[0] == "9"
    return digits[:2] in AREAS_BR and (mobile or (len(number) == 8 and number[0] in "2345"))


def cpf(value: str, before: str, found: re.Match[str]) -> bool:
    digits = [int(c) for c in only_digits(value)]
    if len(digits) != 11 or len(set(digits)) == 1:
        return False
    return all(
        digits[n] == sum(d * (n + 1 - i) for i, d in enumerate(digits[:n])) * 10 % 11 % 10
        for n in (9, 10)
    )


def cnpj(value: str, before: str, found: re.Match[str]) -> bool:
    """Digits, or since July 2026 letters too: each counts as its ASCII code less 48."""
    signs = re.sub(r"[^0-9A-Z]", "", value)
    if len(signs) != 14 or not signs[12:].isdigit() or len(set(signs)) == 1:
        return False
    values = [ord(c) - 48 for c in signs]
    weights = (6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)
    for n in (12, 13):
        rest = sum(v * w for v, w in zip(values[:n], weights[13 - n :], strict=True)) % 11
        if values[n] != (0 if rest < 2 else 11 - rest):
            return False
    return True


def dni(value: str, before: str, found: re.Match[str]) -> bool:
    """Spanish DNI and NIE: the letter is the number modulo 23."""
    signs = re.sub(r"[^0-9A-Z]", "", value.upper())
    number = signs[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
    return number.isdigit() and signs[-1] == "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]


def only_digits(value: str) -> str:
    return "".join(c for c in value if c.isdigit())


CHECKS: dict[str, Check] = {
    "email": email,
    "ipv4": ipv4,
    "ipv6": ipv6,
    "e164": e164,
    "phone_br": phone_br,
    "cpf": cpf,
    "cnpj": cnpj,
    "dni": dni,
}
