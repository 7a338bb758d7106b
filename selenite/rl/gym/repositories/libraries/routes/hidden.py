from net.roads import Roads
from net.search import groups, length_of, shortest, within


def island():
    roads = Roads()
    for start, end, length in (("p", "q", 5), ("q", "r", 5), ("p", "s", 2), ("s", "t", 2)):
        roads.add(start, end, length)
    roads.add("t", "r", 2, one_way=True)
    roads.add("u", "v", 1, one_way=True)
    return roads


def test_roads():
    roads = island()
    assert roads.places() == ["p", "q", "r", "s", "t", "u", "v"]
    assert roads.near("t") == [("r", 2), ("s", 2)]
    assert roads.near("r") == [("q", 5)]
    assert roads.dead_ends() == ["r", "u", "v"]
    roads.add("u", "v", 1)
    roads.add("t", "r", 7)
    assert roads.near("v") == [("u", 1)]
    assert roads.near("r") == [("q", 5), ("t", 7)]
    assert roads.near("t") == [("r", 2), ("s", 2)]


def test_ways():
    roads = island()
    assert shortest(roads, "p", "r") == (6, ["p", "s", "t", "r"])
    assert shortest(roads, "r", "p") == (10, ["r", "q", "p"])
    assert shortest(roads, "r", "t") == (14, ["r", "q", "p", "s", "t"])
    assert shortest(roads, "v", "u") is None
    assert shortest(roads, "p", "u") is None
    assert shortest(roads, "u", "v") == (1, ["u", "v"])


def test_within():
    roads = island()
    assert [within(roads, "p", most) for most in (1, 2, 4, 6)] == [
        [],
        ["s"],
        ["s", "t"],
        ["q", "r", "s", "t"],
    ]


def test_grouping():
    roads = island()
    assert groups(roads) == [["p", "q", "r", "s", "t"], ["u", "v"]]
    roads.add("v", "r", 9, one_way=True)
    assert groups(roads) == [["p", "q", "r", "s", "t", "u", "v"]]
    assert groups(Roads()) == []


def test_lengths():
    roads = island()
    assert length_of(roads, ["p", "q", "r"]) == 10
    assert length_of(roads, ["p"]) == 0
    assert length_of(roads, ["r", "t"]) is None
    assert length_of(roads, ["s", "t", "r", "q"]) == 9
