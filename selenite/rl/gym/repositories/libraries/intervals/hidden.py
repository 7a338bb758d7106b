from spans.algebra import covered, first_gap, gaps, intersection, union
from spans.spanset import SpanSet


def numbers(one):
    return [n for n in range(-5, 40) if one.contains(n)]


def test_adding():
    one = SpanSet([(10, 12), (20, 25)])
    one.add(12, 13)
    one.add(18, 20)
    one.add(30, 30)
    assert one.spans == [(10, 13), (18, 25)]
    one.add(14, 17)
    assert one.spans == [(10, 13), (14, 17), (18, 25)]
    one.add(9, 30)
    assert one.spans == [(9, 30)]
    one.add(31, 32)
    one.add(5, 4)
    assert one.spans == [(9, 30), (31, 32)]


def test_removing():
    one = SpanSet([(0, 5), (10, 15), (20, 25)])
    one.remove(3, 12)
    assert one.spans == [(0, 3), (12, 15), (20, 25)]
    one.remove(15, 20)
    assert one.spans == [(0, 3), (12, 15), (20, 25)]
    one.remove(20, 25)
    one.remove(-2, 1)
    assert one.spans == [(1, 3), (12, 15)]
    one.remove(13, 14)
    assert numbers(one) == [1, 2, 12, 14]


def test_containing():
    one = SpanSet([(0, 1), (4, 6), (9, 10), (12, 16), (20, 21)])
    assert numbers(one) == [0, 4, 5, 9, 12, 13, 14, 15, 20]
    assert one.size() == 9
    assert [SpanSet().contains(0), SpanSet().size()] == [False, 0]


def test_two_sets():
    one = SpanSet([(0, 4), (6, 10), (15, 18)])
    other = SpanSet([(2, 7), (9, 16)])
    assert union(one, other).spans == [(0, 18)]
    assert intersection(one, other).spans == [(2, 4), (6, 7), (9, 10), (15, 16)]
    assert intersection(other, one).spans == [(2, 4), (6, 7), (9, 10), (15, 16)]
    assert intersection(one, SpanSet()).spans == []
    assert intersection(SpanSet([(0, 3), (5, 8)]), SpanSet([(1, 3), (6, 7)])).spans == [
        (1, 3),
        (6, 7),
    ]


def test_free_places():
    one = SpanSet([(0, 4), (6, 10), (15, 18)])
    assert gaps(one, 2, 20).spans == [(4, 6), (10, 15), (18, 20)]
    assert gaps(one, 7, 9).spans == []
    assert [first_gap(one, 0, n) for n in (1, 2, 3, 5, 6)] == [4, 4, 10, 10, 18]
    assert [first_gap(one, n, 2) for n in (4, 5, 8, 11, 14)] == [4, 10, 10, 11, 18]


def test_covering():
    sets = [SpanSet([(0, 10)]), SpanSet([(2, 4), (6, 12)]), SpanSet([(3, 7)])]
    assert covered(sets, 1).spans == [(0, 12)]
    assert covered(sets, 2).spans == [(2, 10)]
    assert covered(sets, 3).spans == [(3, 4), (6, 7)]
    assert covered([], 1).spans == []
