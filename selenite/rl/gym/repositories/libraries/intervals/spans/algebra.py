"""Sets of spans, made from others."""

from spans.spanset import SpanSet


def union(one, other):
    """Numbers of either."""
    return SpanSet([*one.spans, *other.spans])


def intersection(one, other):
    """Numbers of both."""
    found = SpanSet()
    i = j = 0
    while i < len(one.spans) and j < len(other.spans):
        start = max(one.spans[i][0], other.spans[j][0])
        end = min(one.spans[i][1], other.spans[j][1])
        found.add(start, end)
        if one.spans[i][1] < other.spans[j][1]:
            i += 1
        else:
            j += 1
    return found


def gaps(one, start, end):
    """Numbers from start to before end that are not in the set."""
    found = SpanSet([(start, end)])
    for low, high in one.spans:
        found.remove(low, high)
    return found


def first_gap(one, start, length):
    """The least number from start on with ``length`` numbers after it that are free."""
    place = start
    for low, high in one.spans:
        if high <= place:
            continue
        if low - place >= length:
            return place
        place = high
    return place


def covered(sets, least):
    """Numbers that are in at least ``least`` of the sets."""
    steps = []
    for one in sets:
        for low, high in one.spans:
            steps.append((low, 1))
            steps.append((high, -1))
    found = SpanSet()
    depth, before = 0, None
    for place, change in sorted(steps):
        if before is not None and depth >= least:
            found.add(before, place)
        depth += change
        before = place
    return found
