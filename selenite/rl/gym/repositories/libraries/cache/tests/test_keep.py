from keep.limiter import Limiter, backoff
from keep.lru import LRU


def test_what_was_put_is_found():
    cache = LRU(2)
    cache.put("a", 1, 0)
    assert cache.get("a", 5) == 1
    assert cache.get("b", 5) is None
    assert cache.get("b", 5, default=7) == 7


def test_what_was_used_longest_ago_goes():
    cache = LRU(2)
    cache.put("a", 1, 0)
    cache.put("b", 2, 1)
    cache.get("a", 2)
    cache.put("c", 3, 3)
    assert cache.keys() == ["a", "c"]


def test_a_key_has_one_value():
    cache = LRU(2)
    cache.put("a", 1, 0)
    cache.put("b", 2, 0)
    cache.put("a", 3, 0)
    assert cache.keys() == ["b", "a"]
    assert cache.get("a", 0) == 3


def test_values_die():
    cache = LRU(3, ttl=10)
    cache.put("a", 1, 0)
    assert cache.get("a", 9) == 1
    assert cache.get("a", 10) is None


def test_hits_are_counted():
    cache = LRU(2)
    cache.put("a", 1, 0)
    for key in "aab":
        cache.get(key, 1)
    assert [cache.hits, cache.misses] == [2, 1]


def test_the_dead_make_room():
    cache = LRU(2, ttl=10)
    cache.put("a", 1, 0)
    cache.put("b", 2, 8)
    cache.get("a", 9)
    cache.put("c", 3, 10)
    assert cache.keys() == ["b", "c"]


def test_only_so_many_in_a_window():
    limiter = Limiter(2, 10)
    assert [limiter.allow("x", now) for now in (0, 4, 9, 10, 13, 14)] == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]


def test_names_have_their_own_counts():
    limiter = Limiter(1, 10)
    assert limiter.allow("x", 0) is True
    assert limiter.allow("y", 0) is True


def test_the_wait_is_told():
    limiter = Limiter(2, 10)
    assert limiter.wait("x", 0) == 0
    limiter.allow("x", 0)
    limiter.allow("x", 3)
    assert limiter.wait("x", 4) == 6
    assert limiter.wait("x", 10) == 0


def test_waits_double():
    assert [backoff(tries) for tries in (0, 1, 2, 3, 10)] == [0, 1, 2, 4, 60]
