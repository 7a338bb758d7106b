from plan.calendar import label, share, spread
from plan.tasks import Plan


def house():
    plan = Plan()
    plan.add("walls", 20)
    plan.add("roof", 10, after=["walls"])
    plan.add("garden", 8)
    plan.add("paint", 5, after=["walls", "roof"])
    return plan


def test_tasks_come_after_what_they_wait_for():
    assert house().order() == ["garden", "walls", "roof", "paint"]


def test_the_end_of_each_task():
    assert house().earliest() == {"garden": 8, "walls": 20, "roof": 30, "paint": 35}


def test_the_chain_that_takes_longest():
    assert house().critical() == ["walls", "roof", "paint"]
    assert Plan().critical() == []


def test_who_waits_for_nobody_is_refused():
    said = ""
    try:
        house().add("door", 1, after=["frame"])
    except KeyError as error:
        said = error.args[0]
    assert said == "frame"


def test_work_is_spread_over_days():
    assert spread(20, 0) == [(0, 8), (1, 8), (2, 4)]


def test_nobody_works_at_weekends():
    assert spread(10, 4, per_day=5) == [(4, 5), (7, 5)]


def test_work_is_shared():
    assert share(house(), ["Ann", "Bo"]) == {"Ann": ["garden", "roof", "paint"], "Bo": ["walls"]}


def test_labels():
    assert label(0) == "1 Mon"
    assert label(8) == "2 Tue"
