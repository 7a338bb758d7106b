"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from selenite.serve.stop_strings import StopStrings

LETTERS = st.text(alphabet="ab", max_size=30)
STOPS = st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3)


def first_complete(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Letter by letter: the text before the stop string that is complete first, and that one."""
    for end in range(1, len(text) + 1):
        done = [stop for stop in stops if text[:end].endswith(stop)]
        if done:
            longest = max(done, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(LETTERS, STOPS, st.lists(st.integers(1, 5)), st.booleans())
def test_any_cut_gives_the_same(
    text: str, stops: list[str], sizes: list[int], include: bool
) -> None:
    search = StopStrings(stops, include)
    given_out, place = "", 0
    for size in [*sizes, len(text)]:
        given_out += search.push(text[place : place + size])
        place += size
    given_out += search.flush()
    before, stop = first_complete(text, stops)
    assert given_out == before + (stop or "" if include else "")
    assert search.found == stop


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    search = StopStrings(["<end>"])
    assert search.push("a <e") == "a "
    assert search.push("n") == ""
    assert search.push("ough") == "<enough"
    assert search.push(" <end") == " "
    assert search.flush() == "<end"
