from spans.spanset import SpanSet


def test_spans_that_overlap_become_one():
    assert SpanSet([(1, 4), (3, 6), (8, 9)]).spans == [(1, 6), (8, 9)]


def test_spans_that_touch_become_one():
    assert SpanSet([(4, 6), (1, 4)]).spans == [(1, 6)]


def test_a_span_over_several_takes_them_in():
    assert SpanSet([(1, 2), (4, 5), (7, 8), (3, 6)]).spans == [(1, 2), (3, 6), (7, 8)]


def test_empty_spans_add_nothing():
    assert SpanSet([(3, 3), (5, 4)]).spans == []


def test_removing_cuts():
    spans = SpanSet([(1, 10)])
    spans.remove(3, 5)
    assert spans.spans == [(1, 3), (5, 10)]
    spans.remove(0, 2)
    assert spans.spans == [(2, 3), (5, 10)]


def test_the_end_is_not_contained():
    spans = SpanSet([(1, 3), (5, 8), (10, 11)])
    assert [n for n in range(12) if spans.contains(n)] == [1, 2, 5, 6, 7, 10]


def test_size():
    assert SpanSet([(1, 3), (5, 9)]).size() == 6
