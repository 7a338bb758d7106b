"""Ways through the network."""

from itertools import pairwise


def shortest(roads, start, goal):
    """(length, places on the way), or None where no way leads there."""
    best = {start: (0, [start])}
    open_places = [start]
    while open_places:
        place = min(open_places, key=lambda name: best[name][0])
        open_places.remove(place)
        length, way = best[place]
        if place == goal:
            return length, way
        for end, more in roads.near(place):
            if end not in best or length + more < best[end][0]:
                best[end] = (length + more, [*way, end])
                if end not in open_places:
                    open_places.append(end)
    return None


def within(roads, start, most):
    """Places that can be reached in at most this length, without the start, by name."""
    found = []
    for place in roads.places():
        way = shortest(roads, start, place)
        if place != start and way is not None and way[0] <= most:
            found.append(place)
    return found


def groups(roads):
    """Sorted lists of places that roads connect, in whatever direction."""
    left = roads.places()
    found = []
    while left:
        group = [left.pop(0)]
        for place in group:
            for start, end in roads.lengths:
                if start == place and end not in group:
                    group.append(end)
                if end == place and start not in group:
                    group.append(start)
        left = [place for place in left if place not in group]
        found.append(sorted(group))
    return found


def length_of(roads, way):
    """The length of a way by its places, or None where a road is missing."""
    total = 0
    for start, end in pairwise(way):
        if (start, end) not in roads.lengths:
            return None
        total += roads.lengths[start, end]
    return total
