from layout.align import center, columns, justify, right
from layout.wrap import shorten, wrap


def test_wrapping():
    text = "the quick brown fox jumps over the lazy dog"
    assert wrap(text, 10) == ["the quick", "brown fox", "jumps over", "the lazy", "dog"]
    assert wrap(text, 15) == ["the quick brown", "fox jumps over", "the lazy dog"]
    assert wrap("x", 1) == ["x"]
    assert wrap("", 5) == []


def test_cutting():
    assert wrap("to abcdefghij so", 4) == ["to", "abcd", "efgh", "ij", "so"]
    assert wrap("abcdefgh z", 4) == ["abcd", "efgh", "z"]
    assert wrap("abcdefgh", 5) == ["abcde", "fgh"]


def test_shortening():
    assert shorten("alpha beta gamma", 16) == "alpha beta gamma"
    assert shorten("alpha beta gamma", 15) == "alpha beta.."
    assert shorten("alpha beta gamma", 12) == "alpha beta.."
    assert shorten("alpha beta gamma", 11) == "alpha.."
    assert shorten("alphabet", 6) == "alph.."
    assert shorten(" alpha   beta ", 10) == "alpha beta"
    assert shorten("ab cd ef", 5) == "ab.."


def test_aligning():
    assert center("x", 8) == "   x    "
    assert [right("x", 4), right("four", 4)] == ["   x", "four"]
    assert [center("x", 4), center("xy", 5), center("four", 4)] == [" x  ", " xy  ", "four"]


def test_justifying():
    assert justify("to be or not", 17) == "to   be   or  not"
    assert justify("a b c d", 9) == "a  b  c d"
    assert justify("a b c d", 7) == "a b c d"
    assert justify("", 5) == ""
    assert justify("ab cd", 6) == "ab  cd"


def test_tables():
    rows = [["name", "n"], ["bolt", "12"], ["x", "3"]]
    assert columns(rows) == ["name  n", "bolt  12", "x     3"]
    assert columns(rows, gap=1) == ["name n", "bolt 12", "x    3"]
