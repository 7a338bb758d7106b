from store.orders import Order
from store.stock import Stock


def stocked(**counts):
    stock = Stock()
    for article, number in counts.items():
        stock.receive(article, number)
    return stock


def test_receiving_adds_up():
    stock = Stock()
    stock.receive("bolt", 4)
    stock.receive("bolt", 1)
    assert stock.available("bolt") == 5
    assert stock.available("nut") == 0


def test_reserving_takes_from_what_is_available():
    stock = stocked(bolt=5)
    assert stock.reserve("bolt", 3) is True
    assert stock.available("bolt") == 2
    assert stock.reserve("bolt", 2) is True
    assert stock.reserve("bolt", 1) is False
    assert stock.available("bolt") == 0


def test_shipping_takes_out_of_stock():
    stock = stocked(bolt=5)
    stock.reserve("bolt", 3)
    stock.ship("bolt", 2)
    assert stock.counts == {"bolt": 3}
    assert stock.reserved == {"bolt": 1}


def test_only_what_is_reserved_is_shipped():
    stock = stocked(bolt=5)
    stock.reserve("bolt", 1)
    said = ""
    try:
        stock.ship("bolt", 2)
    except ValueError as error:
        said = str(error)
    assert said == "not reserved"


def test_what_runs_low_is_told():
    assert stocked(washer=2, bolt=1, nut=3).running_low() == ["bolt", "washer"]


def test_lines_of_one_article_and_price_are_one():
    order = Order(stocked(bolt=9))
    order.add("bolt", 2, 10)
    order.add("bolt", 3, 10)
    order.add("bolt", 1, 12)
    assert order.lines == [("bolt", 5, 10), ("bolt", 1, 12)]


def test_one_in_ten_is_free():
    order = Order(stocked())
    order.add("bolt", 9, 5)
    assert order.total() == 45
    order.add("nut", 20, 3)
    assert order.total() == 99


def test_an_order_is_confirmed_whole_or_not_at_all():
    stock = stocked(bolt=5, nut=1)
    order = Order(stock)
    order.add("bolt", 4, 10)
    order.add("nut", 2, 10)
    assert order.confirm() is False
    assert stock.available("bolt") == 5
    assert order.state == "open"


def test_a_confirmed_order_is_shipped():
    stock = stocked(bolt=5)
    order = Order(stock)
    order.add("bolt", 4, 10)
    order.add("bolt", 1, 11)
    assert order.confirm() is True
    assert order.ship() == 5
    assert stock.counts == {"bolt": 0}
    assert order.state == "shipped"
