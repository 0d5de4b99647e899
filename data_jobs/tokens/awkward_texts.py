"""A fixed sample of texts on which tokenizer engines have differed, or might.

In: a tokenizer's added tokens and some of its pieces. Out: about 700 short texts, the same in each
process; Hugging Face encodes them in under 0.1 s.
"""

from __future__ import annotations

import random

HAND_PICKED = (
    "",
    " ",
    "  a   b    ",
    "\n\n \n\t x\r\n",
    "a\x00b\x7f\u0085c",
    "\ufeffOlá, mundo! \u00a0\u2003\u200b\u3000fim",
    "d'água Brazil's I'M we'LL they’re 'tis 'ſ",
    "R$ 1.234.567,89 ½ ² ³ Ⅷ ٣٤ 12345678901234567890",
    "não na\u0303o ação ac\u0327a\u0303o",  # composed and with combining marks
    "mba'éichapa \u1ebdg\u0303ua ñandéve y\u0303vy",
    "\u2581casa \u2581\u2581 <0x0A> <unk> <s></s> [CLS]",
    "👩\u200d👩\u200d👧 🇧🇷 👍🏽 \U0001f600 \U0010fffd \ufffd \ue000",
    "漢字かな交じり文 한국어 ภาษาไทย हिन्दी العربية עברית \u202eabc",
    "http://exemplo.com.br/a?b=c&d=%20#e nome.sobrenome@exemplo.org",
    "if (x == y) { return *p++ / 2; } // ---- ==== **** ____",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "xyz" * 400,
    "=" * 700,
    " " * 300 + "fim",
)
# Ranges of code points, of which random texts are drawn.
RANGES = (
    (0x20, 0x7F),
    (0x00, 0x250),
    (0x300, 0x500),
    (0x590, 0x1100),
    (0x1E00, 0x2C00),
    (0x3000, 0xA000),
    (0xE000, 0x10000),
    (0x1F000, 0x1FA00),
    (0x0, 0xD800),
)
BLANKS = " \n\t\r\u00a0\u2003\u2028a1.é"


def awkward_texts(added: list[str], pieces: list[str]) -> list[str]:
    """Hand-picked texts, random ones of many scripts, the added tokens (such as `<|endoftext|>`)
    inside a text, and pieces of the vocabulary side by side."""
    draw = random.Random(6)
    texts = list(HAND_PICKED)
    for low, high in RANGES:
        texts += [
            "".join(chr(draw.randrange(low, high)) for _ in range(draw.randrange(1, 40)))
            for _ in range(40)
        ]
    texts += ["".join(draw.choices(BLANKS, k=draw.randrange(1, 30))) for _ in range(80)]
    texts += [f"fim{token}Era uma vez {token} {token}" for token in added[:100]]
    shuffled = draw.sample(pieces, len(pieces))
    texts += ["".join(shuffled[k : k + 20]) for k in range(0, len(shuffled), 20)]
    texts += [" ".join(shuffled[k : k + 20]) for k in range(0, len(shuffled), 20)]
    return [text.encode("utf-8", "replace").decode() for text in texts]
