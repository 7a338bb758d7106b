from store.orders import Order
from store.stock import Stock


def refusal(action, *arguments):
    try:
        action(*arguments)
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def test_receiving():
    stock = Stock()
    stock.receive("rope", 1)
    stock.receive("rope", 7)
    stock.receive("hook", 2)
    assert stock.counts == {"rope": 8, "hook": 2}
    assert refusal(stock.receive, "rope", 0) == "nothing to receive"
    assert refusal(stock.receive, "rope", -2) == "nothing to receive"


def test_reserving():
    stock = Stock()
    stock.receive("rope", 6)
    assert [stock.reserve("rope", number) for number in (7, 2, 5, 4, 1)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert stock.reserve("lamp", 1) is False
    assert stock.reserved == {"rope": 6}


def test_shipping():
    stock = Stock()
    stock.receive("rope", 9)
    stock.reserve("rope", 6)
    stock.ship("rope", 6)
    assert [stock.counts, stock.reserved, stock.available("rope")] == [{"rope": 3}, {"rope": 0}, 3]
    assert refusal(stock.ship, "rope", 1) == "not reserved"
    assert refusal(stock.ship, "lamp", 1) == "not reserved"


def test_running_low():
    stock = Stock(low=5)
    stock.receive("rope", 5)
    stock.receive("hook", 8)
    stock.receive("axe", 4)
    assert stock.running_low() == ["axe"]
    stock.reserve("rope", 1)
    stock.reserve("hook", 4)
    assert stock.running_low() == ["axe", "hook", "rope"]
    assert Stock().low == 3


def test_totals():
    order = Order(Stock())
    assert order.total() == 0
    order.add("rope", 10, 7)
    assert order.total() == 63
    order.add("rope", 19, 7)
    assert order.total() == 189
    order.add("hook", 1, 7)
    order.add("rope", 1, 9)
    assert order.total() == 205


def test_orders():
    stock = Stock()
    stock.receive("rope", 4)
    stock.receive("hook", 6)
    order = Order(stock)
    order.add("rope", 3, 5)
    order.add("hook", 6, 5)
    order.add("rope", 1, 4)
    assert refusal(order.ship) == "not confirmed"
    assert order.confirm() is True
    assert [stock.available("rope"), stock.available("hook")] == [0, 0]
    assert order.state == "confirmed"
    assert order.ship() == 10
    assert refusal(order.ship) == "not confirmed"
    other = Order(stock)
    other.add("rope", 1, 5)
    assert other.confirm() is False
    stock.receive("axe", 1)
    other.add("axe", 1, 5)
    assert other.confirm() is False
    assert stock.available("axe") == 1
