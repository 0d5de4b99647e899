"""Repair of broken characters, and what must survive it untouched."""

from __future__ import annotations

import pytest

from data_jobs.cleaning.cleaner import Cleaner, CleanSettings
from mutirao.core.languages import load_pack

PORTUGUESE = Cleaner(CleanSettings(), load_pack("por").cleaning)
ANY = Cleaner(CleanSettings(), load_pack("und").cleaning)


def clean(text, cleaner=PORTUGUESE):
    return cleaner.clean([text])[0]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("depÃ³sito voluntÃ¡rio", "depósito voluntário"),
        ("EntÃƒÂ£o, comeÃƒÂ§ar", "Então, começar"),
        ("NÃO E SÃO PÃO", "NÃO E SÃO PÃO"),
        ("cafe\u0301", "café"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a \t\nb  ", "a\nb"),
        ("a\n\n\n\n\nb", "a\n\n\nb"),
        ("a\x07b\x1b\u00adc\ufeff", "abc"),
        ("fim da página\x0coutra", "fim da página\noutra"),
        ("“aspas” e ﬁm", "“aspas” e ﬁm"),
        ("\ud83d\ude42 e \ud800", "🙂 e \ufffd"),
        ("a\tb", "a\tb"),
        ("zero\u200bwidth e li\u200dga\u200cdo", "zerowidth e ligado"),
        ("um texto com uma letra perdida: opera\ufffd\ufffdo; a operação", None),
    ],
)
def test_text_is_repaired(raw, expected):
    found = clean(raw)
    assert found.text == (expected or "um texto com uma letra perdida: operação; a operação")
    assert not found.reason
    assert clean(found.text).text == found.text  # nothing is left to do


SURVIVES = {
    "guarani puso U+02BC": "Che róga oĩ ka\u02bcaguýpe; mbo\u02bcehára",
    "guarani puso U+2019": "Che róga oĩ ka\u2019aguýpe; mbo\u2019ehára",
    "guarani puso '": "Che róga oĩ ka'aguýpe; mbo'ehára",
    "guarani g with combining tilde": "ñandereko ha g\u0303uahẽ, G\u0303uarani",
    "catalan l·l": "intel·ligència, col·lecció, paral·lel",
    "yoruba tones and dots": "Ẹ̀kọ́ ni a fi ń ṣọ́ ìwà; Ọlọ́run, ọ̀rọ̀",
    "emoji of several characters": "👩\u200d💻 ❤\ufe0f\u200d🔥 👨\u200d👩\u200d👧 🏳\ufe0f\u200d🌈",
    "flags, skin tones and keycaps": "🇧🇷 👍🏾 1\ufe0f\u20e3",
    "flag by tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "persian joiner": "می\u200cخواهم کتاب‌ها را بخوانم",
    "hindi joiner": "क्\u200dष और क्\u200cष",
    "arabic with bidi marks": "\u200fالنص العربي\u200f (abc) \u202bمرحبا\u202c",
    "hebrew with points": "שָׁלוֹם\u200e, עולם",
    "khmer with zero width spaces": "ខ្ញុំ\u200bស្រឡាញ់\u200bភាសា\u200bខ្មែរ",
    "dialogue": "— Vens?\n— Não — disse ela. — Hoje, não.\n– E amanhã?",
    "verse": "Minha terra tem palmeiras,\n    Onde canta o Sabiá;\nAs aves, que aqui gorjeiam,\n"
    "    Não gorjeiam como lá.",
    "refrain": ("Um verso qualquer que muda %d\n\nÓ abre alas,\nque eu quero passar\n" * 6)
    % (1, 2, 3, 4, 5, 6)
    + "fim",
    "indented code": "    def f(x):\n        return x\n\n    print(f(1))",
    "code": "Veja:\n\n```python\nfor i in range(3):\n    print(i)\n\n\nx = a[1:]\n```\nPronto.",
    "tag in prose": "Use a tag <b> para negrito e <br> para mudar de linha; &nbsp; é um espaço.",
    "tutorial with html": "# Primeiros passos\n\nEscreva isto:\n\n<html>\n<body>\n<h1>Olá</h1>\n"
    "<p>Texto</p>\n</body>\n</html>\n\nDepois abra o arquivo no navegador e veja o título.",
    "fenced html": "Um exemplo:\n\n```html\n<div class='x'><p>a</p><p>b</p></div>\n```\n\nÉ isso.",
    "jsx": "<MyApp>\n  <Profile name='Ana' />\n</MyApp>",
    "react docs": "O componente `<Suspense>` mostra o fallback até `<Albums />` carregar:\n\n"
    "<Suspense fallback={<Loading />}>\n  <Albums />\n</Suspense>",
    "php": "Diferente de <?php echo 'a'; ?>, a função strip_tags() tira <p> e </p> do texto.",
    "c++ templates": "std::vector<int> v; if (a < b && c > d) { f(&arr); }",
    "generics": "Map<String, List<Integer>> m = new HashMap<>();",
    "versions": "PHP 5.3.2.1, versão 3.12.10.31, Python 3.11.2, OID 1.3.6.1.4.1",
    "statutes": "Lei nº 10.406, de 10 de janeiro de 2002, art. 1.012, § 2º; Decreto 9.310/2018",
    "prices and dates": "R$ 1.234.567,89 em 25/11/2026, 2026-11-25T10:00:00+02:00, 1990-1995",
    "isbn and process": "ISBN 978-85-359-0277-8; processo 0001234-56.2020.8.26.0100; p. 1234-5678",
    "sums": "x = 1 +55119123456; a+1234567890; RAID 1+0; +1425$1",
    "private addresses": "127.0.0.1, 192.168.0.1, 10.0.0.1, 255.255.255.0",
    "scope operator": "std::dec, Face::Add, a::b, Foo::bar(), 12:30:45",
    "handles": "@Override @app.route('/') react@18.2.0 logo@2x.png git@github.com:a/b.git",
    "digits apart": "(set [1 2 3 1 2 3 3 2 1 3 2 1]) ; x = 1 2 3 4 5 6 7 8 9 10",
    "vowels": "a e i o u; A B C D E F G H I J K L M N O P",
    "suspended hyphens": "pré- e pós-guerra; de 16-\nchar; -ou-\nShell",
    "list of hyphens": "- um\n- dois\n-\ntrês",
    "cookies as a topic": "Cookies são guardados.\nCookies\nPHP suporta cookies HTTP.",
    "headings": "Sobre\n\nContato\n\nInício | fim",
    "table": "Nome\nINI_PERDIR\nOutro\nINI_PERDIR\nMais um\nINI_PERDIR\nUm\nINI_PERDIR\nDois\n"
    "INI_PERDIR\nTrês",
    "capitals": "A CONSTITUIÇÃO É A LEI MAIOR. NÃO SE MUDA.",
}


@pytest.mark.parametrize("name", SURVIVES)
@pytest.mark.parametrize("cleaner", [PORTUGUESE, ANY], ids=["por", "und"])
def test_good_text_survives_untouched(name, cleaner):
    found = clean(SURVIVES[name], cleaner)
    assert found.text == SURVIVES[name]
    assert not found.reason and not found.counts


def test_without_repair_the_encoding_stays():
    keep = Cleaner(CleanSettings(unicode_repair=False))
    assert clean("depÃ³sito", keep).text == "depÃ³sito"


@pytest.mark.parametrize("raw", ["", " \n\t", "\0\0", "\u00ad\ufeff"])
def test_nothing_to_read_is_empty(raw):
    assert clean(raw).reason == "empty"


def test_binary_data_and_lost_letters_are_named():
    assert clean("PNG\0\0\0\0IHDR\0\0texto").reason == "nul-bytes"
    lost = "A operação não será aceita, e a decisão é de ambos. ".replace("ã", "\ufffd")
    assert clean(lost).reason == "decode-error"
    assert clean("Uma letra perdida \ufffd num texto longo. " + "palavra " * 90).reason == ""
