"""Following instructions: a topic to write about, and rules for the text that code can check.

Rules that cannot hold together are not combined: each names the aspects of a text that it fixes.
What a reply says of itself ("As requested, no commas are used.") is taken out before anything is
looked at, and a text must be about its topic and no other, so that no constant text earns anything.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selenite.agent.randomness import stream
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.types import Message, ToolSpec

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]+|[^.!?\n]+")
_CLAIM = re.compile(
    r"\b(as|like) (you )?(asked|requested|instructed|required|wished)\b"
    r"|\b(i|we) (have|did|made sure|will|only|am|'ve)\b.*\b(writ\w+|us\w+|includ\w+|avoid\w+"
    r"|follow\w+|kept|keep\w*|ensur\w+|words?|sentences?|commas?|letters?)\b"
    r"|\b(this|my|the|here is (a|my|the)) (reply|answer|response|text|message|essay|paragraph)\b"
    r"|\b(exactly|at least|at most|no more than) (\d+|one|two|three|four|five|six)\b.*"
    r"\b(word|sentence|paragraph|bullet|point|letter|line|item)s?\b",
    re.IGNORECASE,
)
_LONGEST = 4000  # characters of a reply that are read


@dataclass(frozen=True)
class Rule:
    """Something that holds of a text or not."""

    text: str
    holds: Callable[[str], bool]


@dataclass(frozen=True)
class Kind:
    """Rules of one kind. ``fixes``: aspects of a text, of which two rules cannot both have one."""

    fixes: frozenset[str]
    make: Callable[[random.Random], Rule]


class Instructions:
    """The environment ``instructions``. ``level`` is how many rules a task has: 1 to 3."""

    name = "instructions"

    def __init__(self, level: int, seed: int = 0, tokens: int = 256) -> None:
        self.budget = Budget(tokens)
        self._level, self._seed = level, seed

    def begin(self, number: int) -> Written:
        """See ``Environment``."""
        rng = stream(self._seed, "instructions", self._level, number)
        topic = rng.choice(sorted(TOPICS))
        rules = [KINDS[name].make(rng) for name in combination(rng, self._level)]
        return Written(topic, rules)


class Written:
    """An attempt."""

    def __init__(self, topic: str, rules: Sequence[Rule]) -> None:
        self.topic, self.rules = topic, rules
        asked = " ".join(rule.text for rule in rules)
        self.opening: Sequence[Message] = (Message("user", f"Write about {topic}. {asked}"),)
        self.tools: Sequence[ToolSpec] = ()
        self._reply = ""

    def reply(self, turn: Message) -> Sequence[Message]:
        """Nothing follows."""
        self._reply = turn.content
        return ()

    def score(self) -> Score:
        """The share of the rules that hold, of a text that is about its topic."""
        text = without_claims(self._reply[:_LONGEST])
        broken = [rule.text for rule in self.rules if not rule.holds(text)]
        share = 1 - len(broken) / len(self.rules)
        topic = is_about(text, self.topic)
        return Score(
            (
                Check("topic", float(topic), "" if topic else f"it is not about {self.topic}"),
                Check("instructions", share, " ".join(broken)),
            )
        )


def combination(rng: random.Random, count: int) -> list[str]:
    """Kinds that can hold together, at random."""
    names, fixed = list[str](), set[str]()
    for name in rng.sample(sorted(KINDS), len(KINDS)):
        if len(names) < count and not fixed & KINDS[name].fixes:
            names.append(name)
            fixed |= KINDS[name].fixes
    return names


def without_claims(text: str) -> str:
    """Without sentences in which a text speaks of itself."""
    return _SENTENCE.sub(lambda found: "" if _CLAIM.search(found[0]) else found[0], text).strip()


def is_about(text: str, topic: str) -> bool:
    """Whether two or more of a topic's words occur, and more than of any other topic."""
    found = {name: _num_words_of(text, words) for name, words in TOPICS.items()}
    own = found.pop(topic)
    return own >= 2 and own > max(found.values())


def _num_words_of(text: str, words: Sequence[str]) -> int:
    return sum(re.search(rf"\b{word}", text, re.IGNORECASE) is not None for word in words)


TOPICS: Mapping[str, tuple[str, ...]] = {
    "a day at the beach": ("beach", "sand", "wave", "sea", "swim", "sun", "shell", "shore"),
    "baking bread": ("bread", "dough", "flour", "yeast", "oven", "bake", "knead", "loaf"),
    "how bees live": ("bee", "hive", "honey", "nectar", "pollen", "queen", "flower", "wax"),
    "learning to ride a bicycle": ("bicycle", "bike", "pedal", "ride", "brake", "helmet", "fall"),
    "a storm at night": ("storm", "thunder", "lightning", "rain", "wind", "dark", "cloud"),
    "working in a library": ("library", "book", "shelf", "shelves", "read", "borrow", "catalog"),
    "growing tomatoes": ("tomato", "plant", "seed", "soil", "garden", "ripe", "harvest"),
    "a football match": ("football", "goal", "team", "ball", "player", "referee", "score"),
    "the first snow": ("snow", "winter", "cold", "flake", "white", "frost", "ice", "sledge"),
    "travelling by train": ("train", "station", "rail", "ticket", "carriage", "platform", "track"),
    "keeping a dog": ("dog", "walk", "leash", "bark", "puppy", "tail", "paw", "fur"),
    "repairing a clock": ("clock", "gear", "spring", "hand", "tick", "repair", "wheel", "pendulum"),
    "the night sky": ("star", "moon", "planet", "telescope", "sky", "galaxy", "comet"),
    "playing the piano": ("piano", "key", "music", "note", "chord", "play", "melody", "practi"),
    "a visit to the market": ("market", "stall", "fruit", "vegetable", "price", "buy", "basket"),
    "building a house": ("house", "wall", "roof", "brick", "window", "build", "door", "cement"),
}
"""What is written about, and how words of it begin."""

_WORDS = ("gentle", "curious", "silver", "yesterday", "promise", "quiet", "letter", "journey")
_AVOIDED = ("very", "good", "nice", "thing", "really", "great", "always", "people", "just")
_ENDS = ("That is all.", "Think about it.", "So it goes.", "And nothing more.")
_STARTS = ("Listen:", "In short,", "Once again,", "To begin with,")
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def words_of(text: str) -> list[str]:
    """Words, in the order of the text."""
    return re.findall(r"[A-Za-z0-9'’]+", text)


def sentences_of(text: str) -> list[str]:
    """What ends with a full stop, an exclamation or a question mark."""
    return [part for part in re.findall(r"[^.!?]*[.!?]+", text) if words_of(part)]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _count(text: str, word: str) -> int:
    return len(re.findall(rf"\b{re.escape(word)}\b", text, re.IGNORECASE))


def _least_words(rng: random.Random) -> Rule:
    n = rng.randrange(20, 65, 5)
    return Rule(f"Use at least {n} words.", lambda text: len(words_of(text)) >= n)


def _most_words(rng: random.Random) -> Rule:
    n = rng.randrange(15, 65, 5)
    return Rule(f"Use at most {n} words.", lambda text: 4 <= len(words_of(text)) <= n)


def _sentences(rng: random.Random) -> Rule:
    n = rng.randint(2, 6)
    return Rule(
        f"Write exactly {_NUMBERS[n]} sentences.", lambda text: len(sentences_of(text)) == n
    )


def _least_sentences(rng: random.Random) -> Rule:
    n = rng.randint(3, 6)
    return Rule(
        f"Write at least {_NUMBERS[n]} sentences.", lambda text: len(sentences_of(text)) >= n
    )


def _paragraphs(rng: random.Random) -> Rule:
    n = rng.randint(2, 4)
    return Rule(
        f"Write {_NUMBERS[n]} paragraphs with an empty line between them.",
        lambda text: len([part for part in re.split(r"\n\s*\n", text) if part.strip()]) == n,
    )


def _bullets(rng: random.Random) -> Rule:
    n = rng.randint(2, 5)
    return Rule(
        f"Make a list of exactly {_NUMBERS[n]} points, each on a line that begins with “- ”.",
        lambda text: sum(line.startswith("- ") for line in _lines(text)) == n,
    )


def _numbered(rng: random.Random) -> Rule:
    n = rng.randint(2, 5)

    def holds(text: str) -> bool:
        found = [int(line[1]) for line in re.finditer(r"^\s*(\d+)\. \S", text, re.MULTILINE)]
        return found == list(range(1, n + 1))

    return Rule(f"Make a list numbered “1. ” to “{n}. ”, each point on a line.", holds)


def _sections(rng: random.Random) -> Rule:
    n = rng.randint(2, 3)

    def holds(text: str) -> bool:
        found = re.findall(r"^\W*section (\d+)\b", text, re.IGNORECASE | re.MULTILINE)
        return [int(number) for number in found] == list(range(1, n + 1))

    return Rule(
        f"Write {_NUMBERS[n]} sections under the lines “Section 1” to “Section {n}”.", holds
    )


def _two(rng: random.Random) -> Rule:
    return Rule(
        "Give two different texts with a line of six stars (******) between them.",
        lambda text: (
            len(parts := [part.strip() for part in text.split("******")]) == 2
            and all(parts)
            and parts[0].lower() != parts[1].lower()
        ),
    )


def _json(rng: random.Random) -> Rule:
    keys = rng.sample(("title", "summary", "mood", "place", "detail"), 2)

    def holds(text: str) -> bool:
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and set(found) == set(keys) and all(found.values())

    return Rule(
        f"Answer with a JSON object alone, with the keys “{keys[0]}” and “{keys[1]}”.", holds
    )


def _include(rng: random.Random) -> Rule:
    a, b = rng.sample(_WORDS, 2)
    return Rule(
        f"Use the words “{a}” and “{b}”.", lambda text: _count(text, a) > 0 < _count(text, b)
    )


def _frequency(rng: random.Random) -> Rule:
    word, n = rng.choice(_WORDS), rng.randint(2, 4)
    return Rule(
        f"Use the word “{word}” exactly {_NUMBERS[n]} times.", lambda text: _count(text, word) == n
    )


def _avoid(rng: random.Random) -> Rule:
    a, b = rng.sample(_AVOIDED, 2)
    return Rule(
        f"Use neither “{a}” nor “{b}”.", lambda text: not (_count(text, a) or _count(text, b))
    )


def _letter(rng: random.Random) -> Rule:
    letter, n = rng.choice("kvwjxz"), rng.randint(2, 5)
    return Rule(
        f"Use the letter “{letter}” at least {_NUMBERS[n]} times.",
        lambda text: text.lower().count(letter) >= n,
    )


def _lower(rng: random.Random) -> Rule:
    return Rule("Use no capital letters.", lambda text: bool(text) and text == text.lower())


def _upper(rng: random.Random) -> Rule:
    return Rule("Use capital letters only.", lambda text: bool(text) and text == text.upper())


def _capitals(rng: random.Random) -> Rule:
    n = rng.randint(2, 4)
    return Rule(
        f"Write exactly {_NUMBERS[n]} words in capital letters, of two letters or more.",
        lambda text: len(re.findall(r"\b[A-Z]{2,}\b", text)) == n,
    )


def _no_commas(rng: random.Random) -> Rule:
    return Rule("Use no commas.", lambda text: bool(text) and "," not in text)


def _exclamations(rng: random.Random) -> Rule:
    n = rng.randint(1, 3)
    times = "mark" if n == 1 else "marks"
    return Rule(
        f"Use exactly {_NUMBERS[n]} exclamation {times}.", lambda text: text.count("!") == n
    )


def _question(rng: random.Random) -> Rule:
    return Rule("End with a question.", lambda text: text.rstrip('"” ').endswith("?"))


def _start(rng: random.Random) -> Rule:
    words = rng.choice(_STARTS)
    return Rule(
        f"Begin with the words “{words}”", lambda text: text.lower().startswith(words.lower())
    )


def _end(rng: random.Random) -> Rule:
    words = rng.choice(_ENDS)
    return Rule(f"End with the words “{words}”", lambda text: text.lower().endswith(words.lower()))


def _quotes(rng: random.Random) -> Rule:
    return Rule(
        "Put the whole text between double quotation marks.",
        lambda text: len(text) > 2 and text[0] in '"“' and text[-1] in '"”',
    )


def _title(rng: random.Random) -> Rule:
    return Rule(
        "Begin with a title between << and >>.",
        lambda text: re.match(r"<<[^<>\n]+>>\s*\S", text) is not None,
    )


def _placeholders(rng: random.Random) -> Rule:
    n = rng.randint(1, 3)
    places = "a place" if n == 1 else f"{_NUMBERS[n]} places"
    return Rule(
        f"Leave {places} to be filled in, in square brackets such as [name].",
        lambda text: len(re.findall(r"\[[^\[\]\n]+\]", text)) == n,
    )


def _highlights(rng: random.Random) -> Rule:
    n = rng.randint(1, 3)
    parts = "part" if n == 1 else "parts"
    return Rule(
        f"Highlight {_NUMBERS[n]} {parts} of the text with stars, *like this*.",
        lambda text: len(re.findall(r"(?<!\*)\*[^*\n]+\*(?!\*)", text)) == n,
    )


def _postscript(rng: random.Random) -> Rule:
    return Rule(
        "Add a last line that begins with “P.S.”",
        lambda text: (
            bool(_lines(text))
            and re.match(r"p\.\s?s\..*\w", _lines(text)[-1].lower()) is not None
            and len(_lines(text)) > 1
        ),
    )


def _no_digits(rng: random.Random) -> Rule:
    return Rule("Use no digits.", lambda text: bool(text) and not re.search(r"\d", text))


def _number(rng: random.Random) -> Rule:
    n = rng.randint(12, 98)
    return Rule(f"Mention the number {n}, in digits.", lambda text: _count(text, str(n)) > 0)


def _narrow(rng: random.Random) -> Rule:
    n = rng.randrange(40, 65, 5)
    return Rule(
        f"Keep every line at {n} characters or fewer, and use at least two lines.",
        lambda text: len(_lines(text)) > 1 and max(map(len, text.splitlines())) <= n,
    )


_FRAME = frozenset(
    ("layout", "start", "end", "case", "length", "lines", "commas", "brackets", "stars", "marks")
)

KINDS: Mapping[str, Kind] = {
    name: Kind(frozenset(fixes), make)
    for name, fixes, make in (
        ("least_words", {"length"}, _least_words),
        ("most_words", {"length"}, _most_words),
        ("sentences", {"length"}, _sentences),
        ("least_sentences", {"length"}, _least_sentences),
        ("paragraphs", {"layout"}, _paragraphs),
        ("bullets", {"layout"}, _bullets),
        ("numbered", {"layout", "digits", "length"}, _numbered),
        ("sections", {"layout", "digits"}, _sections),
        ("two", {"layout", "stars"}, _two),
        ("json", _FRAME, _json),
        ("include", {"keywords"}, _include),
        ("frequency", {"keywords"}, _frequency),
        ("avoid", {"avoided"}, _avoid),
        ("letter", {"letters"}, _letter),
        ("lower", {"case"}, _lower),
        ("upper", {"case"}, _upper),
        ("capitals", {"case"}, _capitals),
        ("no_commas", {"commas"}, _no_commas),
        ("exclamations", {"marks"}, _exclamations),
        ("question", {"end"}, _question),
        ("start", {"start", "commas"}, _start),
        ("end", {"end"}, _end),
        ("quotes", {"start", "end"}, _quotes),
        ("title", {"start"}, _title),
        ("placeholders", {"brackets"}, _placeholders),
        ("highlights", {"stars"}, _highlights),
        ("postscript", {"end", "lines", "length"}, _postscript),
        ("no_digits", {"digits"}, _no_digits),
        ("number", {"digits"}, _number),
        ("narrow", {"lines"}, _narrow),
    )
}
