from layout.align import center, columns, justify, right
from layout.wrap import shorten, wrap


def test_lines_are_as_long_as_they_may_be():
    assert wrap("one two three four", 9) == ["one two", "three", "four"]
    assert wrap("ab cd ef", 5) == ["ab cd", "ef"]


def test_nothing_makes_no_lines():
    assert wrap("  ", 4) == []


def test_long_words_are_cut():
    assert wrap("a bcdefgh ij", 3) == ["a", "bcd", "efg", "h", "ij"]
    assert wrap("abcdef", 3) == ["abc", "def"]


def test_short_texts_are_not_shortened():
    assert shorten("one  two", 7) == "one two"


def test_shortening_ends_at_a_word():
    assert shorten("one two three", 10) == "one two.."
    assert shorten("one two three", 8) == "one.."


def test_right():
    assert right("abc", 5) == "  abc"


def test_center():
    assert center("abc", 6) == " abc  "
    assert center("ab", 6) == "  ab  "


def test_words_are_spread():
    assert justify("a b c", 8) == "a   b  c"
    assert justify("one two", 9) == "one   two"


def test_one_word_is_not_spread():
    assert justify("one", 9) == "one"


def test_columns():
    assert columns([["a", "bcd", "e"], ["fg", "h", "i"]]) == ["a   bcd  e", "fg  h    i"]
