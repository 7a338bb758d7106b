"""What texts are about: things of a kind, and what is told of them. Those of training and of
evaluation share nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Of a value."""

    NUMBER = "number"
    DATE = "date"
    ID = "id"
    PERSON = "person"
    PLACE = "place"


@dataclass(frozen=True)
class Attribute:
    """Something that is told of each thing."""

    label: str  # as requests call it: "the … of NAME"
    kind: Kind
    phrase: str  # as texts tell it: "NAME …"
    words: tuple[str, ...]  # how words begin that name it in a reply; no other attribute has them
    most: int = 0  # of a number; at least a tenth of it


@dataclass(frozen=True)
class Topic:
    """Things of a kind."""

    noun: str  # its plural has an s
    prefix: str  # of ids
    attributes: Sequence[Attribute]


TRAINING: Sequence[Topic] = (
    Topic(
        "ship",
        "KD",
        (
            Attribute("size of the crew", Kind.NUMBER, "sails with {} people on board",
                      ("crew", "sailor", "people", "board"), 180),
            Attribute("length in metres", Kind.NUMBER, "measures {} metres from bow to stern",
                      ("length", "metre", "meter", "long", "measur"), 400),
            Attribute("date of the launch", Kind.DATE, "first touched the water on {}",
                      ("launch", "touch", "water")),
            Attribute("date of the last overhaul", Kind.DATE, "came out of repair on {}",
                      ("overhaul", "repair")),
            Attribute("captain", Kind.PERSON, "takes orders from {}",
                      ("captain", "command", "order", "led")),
            Attribute("register number", Kind.ID, "is entered with the authorities as {}",
                      ("regist", "enter", "authorit")),
            Attribute("home port", Kind.PLACE, "returns to {} after each voyage",
                      ("home", "port", "harbour", "return")),
        ),
    ),
    Topic(
        "observatory",
        "OB",
        (
            Attribute("number of telescopes", Kind.NUMBER, "points {} instruments at the sky",
                      ("telescope", "instrument"), 90),
            Attribute("height in metres", Kind.NUMBER, "stands {} metres above the sea",
                      ("height", "high", "metre", "meter", "sea", "altitude"), 5000),
            Attribute("opening date", Kind.DATE, "received its first guests on {}",
                      ("open", "guest")),
            Attribute("director", Kind.PERSON, "is in the hands of {}",
                      ("director", "direct", "hand", "head", "run")),
            Attribute("grant number", Kind.ID, "is paid for under {}",
                      ("grant", "paid", "fund")),
            Attribute("nearest town", Kind.PLACE, "has its supplies brought up from {}",
                      ("town", "near", "suppl")),
        ),
    ),
    Topic(
        "warehouse",
        "WH",
        (
            Attribute("number of gates", Kind.NUMBER, "lets lorries in through {} gates",
                      ("gate", "lorr"), 120),
            Attribute("yearly rent in euros", Kind.NUMBER, "costs its tenant {} euros a year",
                      ("rent", "euro", "cost", "tenant"), 9000),
            Attribute("date of the inspection", Kind.DATE, "was looked over by experts on {}",
                      ("inspect", "expert", "look")),
            Attribute("keeper of the keys", Kind.PERSON, "is locked every evening by {}",
                      ("key", "lock")),
            Attribute("insurance policy", Kind.ID, "is covered against fire by {}",
                      ("insur", "polic", "cover", "fire")),
            Attribute("city", Kind.PLACE, "was built at the edge of {}",
                      ("city", "built", "edge", "locat")),
        ),
    ),
)  # fmt: skip
EVALUATION: Sequence[Topic] = (
    Topic(
        "theatre",
        "TH",
        (
            Attribute("number of seats", Kind.NUMBER, "finds room for {} spectators",
                      ("seat", "spectator", "room"), 900),
            Attribute("number of plays", Kind.NUMBER, "puts {} pieces on its stage each season",
                      ("play", "piece", "season"), 90),
            Attribute("date of the premiere", Kind.DATE, "first raised its curtain on {}",
                      ("premiere", "curtain", "rais")),
            Attribute("stage designer", Kind.PERSON, "owes its scenery to {}",
                      ("design", "scene")),
            Attribute("licence", Kind.ID, "performs by permission {}",
                      ("licen", "permi", "perform")),
            Attribute("partner town", Kind.PLACE, "exchanges actors with {}",
                      ("partner", "town", "exchang", "actor")),
        ),
    ),
    Topic(
        "orchard",
        "QT",
        (
            Attribute("number of trees", Kind.NUMBER, "is planted with {} trunks in rows",
                      ("tree", "trunk", "plant"), 900),
            Attribute("harvest in tonnes", Kind.NUMBER, "yields {} tonnes in a good autumn",
                      ("harvest", "tonne", "yield", "autumn"), 150),
            Attribute("date of the sale", Kind.DATE, "passed to new owners on {}",
                      ("sale", "sold", "owner", "pass")),
            Attribute("gardener", Kind.PERSON, "is tended the whole year round by {}",
                      ("garden", "tend")),
            Attribute("parcel", Kind.ID, "is drawn on the map as {}",
                      ("parcel", "drawn", "map")),
            Attribute("market place", Kind.PLACE, "sells its fruit in {}",
                      ("market", "sell", "fruit")),
        ),
    ),
)  # fmt: skip
