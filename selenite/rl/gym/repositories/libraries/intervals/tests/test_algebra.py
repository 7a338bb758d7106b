from spans.algebra import covered, first_gap, gaps, intersection, union
from spans.spanset import SpanSet


def test_union():
    assert union(SpanSet([(1, 3)]), SpanSet([(2, 5), (7, 8)])).spans == [(1, 5), (7, 8)]


def test_intersection():
    one = SpanSet([(1, 5), (7, 12)])
    other = SpanSet([(3, 8), (10, 11)])
    assert intersection(one, other).spans == [(3, 5), (7, 8), (10, 11)]


def test_gaps():
    assert gaps(SpanSet([(2, 4), (6, 7)]), 0, 9).spans == [(0, 2), (4, 6), (7, 9)]


def test_the_first_gap_is_long_enough():
    spans = SpanSet([(2, 4), (6, 9)])
    assert first_gap(spans, 0, 2) == 0
    assert first_gap(spans, 1, 2) == 4
    assert first_gap(spans, 1, 3) == 9


def test_covered_by_two():
    sets = [SpanSet([(0, 5)]), SpanSet([(3, 8)]), SpanSet([(4, 6), (7, 9)])]
    assert covered(sets, 2).spans == [(3, 6), (7, 8)]
