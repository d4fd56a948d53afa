"""The kernel's parsers, against a second telling of them: character by character, as the C code goes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memhpfs.errors import BadText, TooLarge
from memhpfs.parse import c_string, kstrtobool, kstrtoull, match_word, memparse

U64 = (1 << 64) - 1
WORDS = {"offline": 0, "online": 1, "online_kernel": 2, "online_movable": 3}
SUFFIXES = {"": 0, "k": 10, "M": 20, "g": 30, "T": 40, "p": 50, "E": 60}

#: Text that looks like numbers more often than not.
number_like = st.one_of(
    st.text(alphabet="+-0123456789abcxX \n", max_size=12),
    st.builds("{}{}{}{}".format, st.sampled_from(["", "+", "-", " "]), st.sampled_from(["", "0", "0x", "0X"]),
              st.integers(0, U64 * 20), st.sampled_from(["", "\n", "\n\n", " ", "junk"])),
    st.text(max_size=8),
)


def digits_of(text: str, base: int) -> tuple[int, int]:
    """Value and number of the digits at the start.  Linux: _parse_integer."""
    value = count = 0
    for character in text:
        digit = "0123456789abcdef".find(character.lower()) if character.isascii() else -1
        if not 0 <= digit < base:
            break
        value, count = value * base + digit, count + 1
    return value, count


def radix_of(text: str) -> tuple[int, str]:
    """Base and the text without its prefix.  Linux: _parse_integer_fixup_radix."""
    if not text.startswith("0"):
        return 10, text
    if text[1:2] in ("x", "X") and text[2:3] and text[2] in "0123456789abcdefABCDEF":
        return 16, text[2:]
    return 8, text


def reference_kstrtoull(text: str, base: int) -> int | type[Exception]:
    """Linux: _kstrtoull; a number that is too large is told before what stands behind it is looked at."""
    text = text.removeprefix("+")
    if base == 0:
        base, text = radix_of(text)
    value, count = digits_of(text, base)
    if value > U64:
        return TooLarge
    return value if count and text[count:] in ("", "\n") else BadText


@given(number_like, st.sampled_from([0, 10]))
@settings(max_examples=800)
def test_kstrtoull_agrees_with_the_c_code(text, base):
    """Value or errno of any text, for base 0 and 10."""
    want = reference_kstrtoull(text, base)

    if isinstance(want, int):
        assert kstrtoull(text, base) == want
    else:
        with pytest.raises(want):
            kstrtoull(text, base)


@given(st.integers(0, U64), st.integers(0, U64), st.sampled_from(["{}", "{:#x}", "0{:o}", "+{}\n"]))
def test_kstrtoull_keeps_to_its_limit(value, limit, form):
    """A number is itself in any base, and ERANGE beyond the limit of its type."""
    text = form.format(value)

    if value > limit:
        with pytest.raises(TooLarge):
            kstrtoull(text, limit=limit)
    else:
        assert kstrtoull(text, limit=limit) == value


@given(st.text(alphabet="yYtT1nNfF0oOeEdD \n2x", max_size=6), st.booleans())
@settings(max_examples=300)
def test_kstrtobool_looks_at_two_characters(text, enable_words):
    """Whatever follows the first two characters makes no difference."""

    def parsed(word):
        try:
            return kstrtobool(word, enable_words=enable_words)
        except BadText:
            return BadText

    assert parsed(text) is parsed(text[:2])
    assert parsed(text) is parsed(text.swapcase())


@given(st.one_of(st.sampled_from(list(WORDS)), st.text(max_size=8)), st.sampled_from(["", "\n", "\n\n", " "]))
def test_match_word_allows_one_newline(word, tail):
    """Only a word of the table matches, with at most one newline behind it."""
    text = word + tail

    if text.removesuffix("\n") in WORDS:
        assert match_word(text, WORDS) == WORDS[text.removesuffix("\n")]
    else:
        with pytest.raises(BadText):
            match_word(text, WORDS)


@given(st.binary(max_size=40))
def test_c_string_ends_at_the_first_nul(data):
    """A parser sees the bytes before the first NUL, each as one character."""
    text = c_string(data)

    assert text.encode("latin1") == data.split(b"\0")[0]


@given(number_like)
def test_memparse_takes_what_it_can(text):
    """It never fails: the value of the digits and suffix at the start, and the rest as it is."""
    value, rest = memparse(text)

    assert text.endswith(rest)
    assert 0 <= value <= U64
    if rest == text:
        assert value == 0


@given(st.integers(0, 1 << 20), st.sampled_from(list(SUFFIXES)), st.sampled_from(["{}", "{:#x}"]))
def test_memparse_shifts_by_the_suffix(number, suffix, form):
    """A number with a suffix is that many powers of 1024, modulo 2^64; a hexadecimal E is a digit."""
    if suffix == "E" and form == "{:#x}":
        suffix = "T"
    value, rest = memparse(form.format(number) + suffix + "@rest")

    assert (value, rest) == (number << SUFFIXES[suffix] & U64, "@rest")
