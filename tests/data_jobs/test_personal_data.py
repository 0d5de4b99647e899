"""Personal data masked by kind, and numbers that are none. All values here are invented."""

from __future__ import annotations

import pytest

from data_jobs.cleaning.cleaner import Cleaner, CleanSettings
from mutirao.core.languages import load_pack

PORTUGUESE = Cleaner(CleanSettings(), load_pack("por").cleaning)
ANY = Cleaner(CleanSettings(), load_pack("und").cleaning)


def clean(text, cleaner=PORTUGUESE):
    return cleaner.clean([text])[0]


@pytest.mark.parametrize(
    ("raw", "masked"),
    [
        ("escreva a fulana.de-tal+a@exemplo.com.br.", "escreva a <email>."),
        ("mailto:fulana@exemplo.org", "mailto:<email>"),
        ("o IP 203.0.113.7 e http://198.51.100.23:8080/x", "o IP <ip> e http://<ip>:8080/x"),
        ("acesso de 189.100.203.17 às 10h", "acesso de <ip> às 10h"),
        ("de 2001:db8:85a3::8a2e:370:7334 a 2804:14c::1", "de <ip> a <ip>"),
        ("ligue +55 11 91234-5678 ou +351 912 345 678", "ligue <phone> ou <phone>"),
        ("call +1 (425) 555-0100 or +442071838750", "call <phone> or <phone>"),
        ("(11) 91234-5678; (021)2345-6789; (71) 3456.7890", "<phone>; <phone>; <phone>"),
        ("tel. 11 91234-5678, celular: 21 987654321", "tel. <phone>, celular: <phone>"),
        ("Fone: 3456-7890", "Fone: <phone>"),
        ("telemóvel 912 345 678", "telemóvel <phone>"),
        ("CPF 529.982.247-25 e CPF nº 52998224725", "CPF <cpf> e CPF nº <cpf>"),
        ("CNPJ 11.222.333/0001-81", "CNPJ <cnpj>"),
        ("CNPJ: 11222333000181", "CNPJ: <cnpj>"),
        ("o novo 12.ABC.345/01DE-35", "o novo <cnpj>"),  # the Receita Federal's own example
        (
            "Av. Paulista, 1578, São Paulo - SP, 01310-100",
            "Av. Paulista, 1578, São Paulo - SP, <cep>",
        ),
        ("CEP: 01.310-100", "CEP: <cep>"),
        ("R. Augusta, 10, centro, 01305-000", "R. Augusta, 10, centro, <cep>"),
    ],
)
def test_personal_data_is_masked_by_kind(raw, masked):
    found = clean(raw)
    assert found.text == masked
    assert sum(found.counts.values()) == masked.count("<")
    assert clean(masked).text == masked  # a mask is no markup


@pytest.mark.parametrize(
    "text",
    [
        "CPF 529.982.247-26 e 111.111.111-11 não existem",
        "11.222.333/0001-82 e 12.ABC.345/01DE-36 não existem",
        "processo 0001234-56.2020.8.26.0100, protocolo 52998224725",
        "Lei nº 13.709/2018, art. 5º, IV; Decreto 9.310-2018; RE 1.017.365",
        "a banda de 1234-5678 e os anos 1990-1995, 11 2010-2014",
        "(10) 91234-5678 não tem código de área que exista; (11) 81234-567",
        "código de barras 789123456789; ISBN 978-85-359-0277-8; NF 12345-678",
        "R$ 1.234.567,89; 1.200.000.000; 3,1415926535; 6,02 x 10^23",
        "versão 10.0.19041.1202, driver 131.107.155.10-beta, seção 4.1.2.3",
        "endereço 192.168.10.1, localhost 127.0.0.1, máscara 255.255.255.0",
        "12:30:45, std::dec, 2021:10:11, fe80::1, ::1",
        "x+1234567890, 2 +55119123456, +20192-04-17, RAID 1+0",
        "ftp://usuario:senha@exemplo.com/a git@exemplo.com:a react@18.2.0 logo@2x.png @ana",
        "05/11/2014 07:28 PM, 2026-11-25T10:00:00+02:00",
    ],
)
def test_other_numbers_stay(text):
    found = clean(text)
    assert found.text == text and not found.counts


def test_kinds_belong_to_the_language():
    text = "CPF 529.982.247-25, (11) 91234-5678, fulana@exemplo.org"
    assert clean(text, ANY).text == "CPF 529.982.247-25, (11) 91234-5678, <email>"
    assert clean(text, ANY).counts == {"masked.email": 1}


@pytest.mark.parametrize("code", ["spa", "cat", "glg", "eus"])
def test_spanish_identity_numbers_by_their_letter(code):
    cleaner = Cleaner(CleanSettings(), load_pack(code).cleaning)
    assert clean("DNI 12345678Z, NIE X1234567L", cleaner).text == "DNI <dni>, NIE <dni>"
    kept = "DNI 12345678A, 12345678Z"  # a wrong letter; no word before it
    assert clean(kept, cleaner).text == kept


def test_masking_can_be_switched_off():
    keep = Cleaner(CleanSettings(personal_data="keep"), load_pack("por").cleaning)
    assert clean("fulana@exemplo.org", keep).text == "fulana@exemplo.org"
