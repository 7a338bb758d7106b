from net.roads import Roads
from net.search import groups, length_of, shortest, within


def town():
    roads = Roads()
    roads.add("A", "B", 4)
    roads.add("B", "C", 3)
    roads.add("A", "C", 9)
    roads.add("C", "D", 2, one_way=True)
    return roads


def test_roads_go_both_ways():
    assert town().near("B") == [("A", 4), ("C", 3)]
    assert town().near("D") == []


def test_the_shorter_road_counts():
    roads = town()
    roads.add("A", "B", 6)
    assert roads.near("B") == [("A", 4), ("C", 3)]
    roads.add("A", "B", 1)
    assert roads.near("B") == [("A", 1), ("C", 3)]


def test_dead_ends():
    assert town().dead_ends() == ["D"]


def test_the_shortest_way():
    assert shortest(town(), "A", "D") == (9, ["A", "B", "C", "D"])
    assert shortest(town(), "A", "A") == (0, ["A"])


def test_no_way():
    assert shortest(town(), "D", "A") is None


def test_what_is_near():
    assert within(town(), "A", 7) == ["B", "C"]
    assert within(town(), "A", 3) == []


def test_groups():
    roads = town()
    roads.add("X", "Y", 1)
    assert groups(roads) == [["A", "B", "C", "D"], ["X", "Y"]]


def test_the_length_of_a_way():
    assert length_of(town(), ["A", "C", "B"]) == 12
    assert length_of(town(), ["A", "D"]) is None
