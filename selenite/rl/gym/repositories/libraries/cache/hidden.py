from keep.limiter import Limiter, backoff
from keep.lru import LRU


def test_room():
    cache = LRU(3)
    for place, key in enumerate("pqrs"):
        cache.put(key, place, place)
    assert cache.keys() == ["q", "r", "s"]
    assert [cache.get(key, 9) for key in "spq"] == [3, None, 1]
    assert cache.keys() == ["r", "s", "q"]
    cache.put("t", 4, 9)
    assert cache.keys() == ["s", "q", "t"]
    one = LRU(1)
    one.put("a", 1, 0)
    one.put("b", 2, 0)
    assert one.keys() == ["b"]


def test_age():
    cache = LRU(4, ttl=5)
    cache.put("a", 1, 0)
    cache.put("b", 2, 2)
    assert cache.get("a", 4) == 1
    assert cache.get("a", 5) is None
    assert cache.keys() == ["b"]
    cache.put("c", 3, 6)
    assert cache.expire(6) == 0
    assert cache.expire(7) == 1
    assert cache.keys() == ["c"]
    assert cache.expire(30) == 1
    assert LRU(1).expire(9) == 0


def test_putting_again_is_young():
    cache = LRU(2, ttl=5)
    cache.put("a", 1, 0)
    cache.put("a", 2, 4)
    assert cache.get("a", 8) == 2
    assert cache.get("a", 9, "gone") == "gone"


def test_counts():
    cache = LRU(1, ttl=3)
    cache.put("a", 1, 0)
    cache.get("a", 1)
    cache.get("a", 3)
    cache.get("a", 3)
    assert [cache.hits, cache.misses] == [1, 2]


def test_limits():
    limiter = Limiter(3, 6)
    assert [limiter.allow("job", now) for now in (1, 2, 3, 4, 6, 7, 8, 9, 9)] == [
        True,
        True,
        True,
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    assert limiter.recent("job", 13) == [8, 9]
    assert limiter.recent("other", 0) == []


def test_waits():
    limiter = Limiter(3, 6)
    for now in (1, 2, 4):
        limiter.allow("job", now)
    assert [limiter.wait("job", now) for now in (4, 5, 6, 7, 20)] == [3, 2, 1, 0, 0]
    assert limiter.wait("other", 4) == 0
    assert [backoff(n, first=3, most=20) for n in range(6)] == [0, 3, 6, 12, 20, 20]
    assert backoff(7) == 60
