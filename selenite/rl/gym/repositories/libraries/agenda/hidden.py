from plan.calendar import is_workday, label, share, spread
from plan.tasks import Plan


def dinner():
    plan = Plan()
    plan.add("shop", 2)
    plan.add("soup", 3, after=["shop"])
    plan.add("cake", 4, after=["shop"])
    plan.add("table", 1)
    plan.add("serve", 1, after=["soup", "cake", "table"])
    plan.add("music", 7)
    return plan


def test_order():
    assert dinner().order() == ["music", "shop", "cake", "soup", "table", "serve"]
    assert Plan().order() == []


def test_ends():
    assert dinner().earliest() == {
        "music": 7,
        "shop": 2,
        "cake": 6,
        "soup": 5,
        "table": 1,
        "serve": 7,
    }
    assert dinner().critical() == ["music"]


def test_chains():
    plan = dinner()
    plan.add("dishes", 2, after=["serve"])
    assert plan.critical() == ["shop", "cake", "serve", "dishes"]
    plan.add("sleep", 9)
    assert plan.critical() == ["shop", "cake", "serve", "dishes"]
    plan.add("zebra", 1, after=["sleep"])
    assert plan.critical() == ["sleep", "zebra"]


def test_days():
    assert [day for day in range(15) if is_workday(day)] == [0, 1, 2, 3, 4, 7, 8, 9, 10, 11, 14]
    assert spread(9, 5) == [(7, 8), (8, 1)]
    assert spread(16, 3) == [(3, 8), (4, 8)]
    assert spread(7, 3, per_day=3) == [(3, 3), (4, 3), (7, 1)]
    assert spread(0, 3) == []
    assert [label(day) for day in (6, 7, 13, 24)] == ["1 Sun", "2 Mon", "2 Sun", "4 Thu"]


def test_sharing():
    assert share(dinner(), ["Cy", "Al", "Di"]) == {
        "Cy": ["shop", "soup", "serve"],
        "Al": ["music"],
        "Di": ["cake", "table"],
    }
    assert share(dinner(), ["Al"]) == {"Al": ["music", "shop", "cake", "soup", "table", "serve"]}
    assert share(Plan(), ["Al"]) == {"Al": []}
