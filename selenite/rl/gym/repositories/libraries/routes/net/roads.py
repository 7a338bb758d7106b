"""The network."""


class Roads:
    """Roads with lengths; most go both ways."""

    def __init__(self):
        self.lengths = {}

    def add(self, start, end, length, one_way=False):
        """Adds a road, or makes one shorter; a longer one is not taken in."""
        known = self.lengths.get((start, end))
        if known is None or length < known:
            self.lengths[start, end] = length
        if not one_way:
            self.add(end, start, length, one_way=True)

    def places(self):
        """All places, by name."""
        return sorted({place for road in self.lengths for place in road})

    def near(self, place):
        """(neighbour, length) by name."""
        return sorted(
            (end, length) for (start, end), length in self.lengths.items() if start == place
        )

    def dead_ends(self):
        """Places with one way out or none."""
        return [place for place in self.places() if len(self.near(place)) <= 1]
