"""Tokens of the registry's own: how they are made, and which text is one."""

import hashlib
import re
from binascii import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_registry.access import tokens


def test_a_token_is_of_the_form_that_scanners_know():
    token = tokens.make()
    assert re.fullmatch(r"mcpr_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}_[0-9A-Za-z]{6}", token.text)
    assert token.text.split("_")[1] == token.id


def test_a_token_that_was_made_is_one():
    token = tokens.make()
    assert tokens.parse(token.text) == token


def test_no_two_tokens_share_an_id_or_a_secret():
    made = [tokens.make() for _ in range(200)]
    assert len({token.id for token in made}) == len({token.text.split("_")[2] for token in made}) == 200


def test_ids_and_secrets_are_of_every_digit():
    text = "".join(token.text.split("_")[1] + token.text.split("_")[2] for token in (tokens.make() for _ in range(200)))
    assert set(text) == set(tokens.DIGITS) and len(tokens.DIGITS) == 62


@pytest.mark.parametrize(
    ("unchecked", "crc", "checksum"),
    [
        ("mcpr_0123456789AB_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn", 0x68FAAD28, "1vC3rs"),
        ("mcpr_000000000063_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn", 1381956, "005nVc"),
    ],
)
def test_the_checksum_is_the_crc_32_in_base_62_with_six_digits(unchecked, crc, checksum):
    assert crc32(unchecked.encode()) == crc
    assert tokens.parse(f"{unchecked}_{checksum}") == (unchecked.split("_")[1], f"{unchecked}_{checksum}")


@given(st.integers(0, 60), st.characters())
def test_a_text_that_differs_in_one_character_is_no_token(place, character):
    text = tokens.make().text
    changed = text[:place] + character + text[place + 1 :]
    assert changed == text or tokens.parse(changed) is None


@given(st.text(), st.text())
def test_what_is_around_a_token_is_no_part_of_one(before, behind):
    text = tokens.make().text
    assert (before + behind == "") or tokens.parse(before + text + behind) is None


@given(st.text() | st.lists(st.text(max_size=41), min_size=4, max_size=4).map("_".join))
def test_any_other_text_is_no_token_and_no_fault(text):
    assert tokens.parse(text) is None


@pytest.mark.parametrize(
    "unchecked",
    [
        "mcpr_0123456789A_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn",
        "mcpr_0123456789AB_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklm",
        "mcpx_0123456789AB_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn",
        "MCPR_0123456789AB_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn",
        "mcpr_0123456789A-_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn",
        "mcpr_0123456789AB_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijkl\u00e4n",
    ],
)
def test_the_right_checksum_of_another_form_makes_no_token(unchecked):
    assert tokens.parse(f"{unchecked}_{tokens._checksum(unchecked)}") is None


def test_the_digest_is_the_sha_256_of_all_of_it():
    text = tokens.make().text
    assert tokens.digest(text) == hashlib.sha256(text.encode()).digest()


def test_what_is_no_text_of_unicode_has_a_digest_too():
    assert tokens.digest("a\ud800") == hashlib.sha256(b"a\xed\xa0\x80").digest()


def test_what_is_printed_of_a_token_holds_no_secret():
    token = tokens.make()
    assert repr(token) == str(token) == f"Token({token.id})"
