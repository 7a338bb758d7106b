"""A set of numbers, held as spans that neither touch nor overlap."""


class SpanSet:
    """Sorted spans."""

    def __init__(self, spans=()):
        self.spans = []
        for start, end in spans:
            self.add(start, end)

    def add(self, start, end):
        """Adds the numbers from start to before end; spans that touch become one."""
        if start >= end:
            return
        kept = []
        for low, high in self.spans:
            if high < start or end < low:
                kept.append((low, high))
            else:
                start = min(start, low)
                end = max(end, high)
        kept.append((start, end))
        self.spans = sorted(kept)

    def remove(self, start, end):
        """Takes the numbers from start to before end out."""
        kept = []
        for low, high in self.spans:
            if low < start:
                kept.append((low, min(high, start)))
            if high > end:
                kept.append((max(low, end), high))
        self.spans = sorted(set(kept))

    def contains(self, number):
        """Whether a number is in the set, by halving."""
        first, last = 0, len(self.spans)
        while first < last:
            middle = (first + last) // 2
            low, high = self.spans[middle]
            if number < low:
                last = middle
            elif number >= high:
                first = middle + 1
            else:
                return True
        return False

    def size(self):
        """How many numbers it has."""
        return sum(high - low for low, high in self.spans)
