from books.ledger import Ledger
from books.money import parse, show, split


def test_reading():
    assert [parse(text) for text in ("0", "0.1", "0.01", "10.10", "-0.99", "2,000,000.07")] == [
        0,
        10,
        1,
        1010,
        -99,
        200000007,
    ]
    said = ""
    try:
        parse("0.001")
    except ValueError as error:
        said = str(error)
    assert said == "more than two decimals"


def test_showing():
    assert [show(cents) for cents in (7, 99, 100, 1000000, -123, -250000)] == [
        "0.07",
        "0.99",
        "1.00",
        "10,000.00",
        "-1.23",
        "-2,500.00",
    ]


def test_splitting():
    assert split(10, 4) == [3, 3, 2, 2]
    assert split(0, 2) == [0, 0]
    assert split(5, 1) == [5]
    assert split(2, 3) == [1, 1, 0]


def test_limits():
    ledger = Ledger()
    ledger.limit("till", 0)
    assert ledger.move(1, "till", "shop", 1) is False
    assert ledger.entries == []
    assert ledger.move(1, "owner", "till", 10) is True
    assert ledger.move(1, "till", "shop", 11) is False
    assert ledger.move(1, "till", "shop", 10) is True
    assert ledger.balance("till") == 0
    ledger.limit("till", -5)
    assert ledger.move(2, "till", "shop", 6) is False
    assert ledger.move(2, "till", "shop", 5) is True
    said = ""
    try:
        ledger.move(3, "owner", "till", -1)
    except ValueError as error:
        said = str(error)
    assert said == "an amount must be positive"


def test_days():
    ledger = Ledger()
    for day, cents in ((5, 100), (1, 20), (3, 3)):
        ledger.move(day, "a", "b", cents)
    ledger.move(4, "b", "c", 50)
    assert [ledger.balance("b", until=day) for day in range(7)] == [0, 20, 20, 23, -27, 73, 73]
    assert ledger.statement("b") == ["1 0.20 0.20", "3 0.03 0.23", "4 -0.50 -0.27", "5 1.00 0.73"]
    assert ledger.statement("c") == ["4 0.50 0.50"]
    assert ledger.statement("d") == []
    assert ledger.accounts() == ["a", "b", "c"]


def test_an_account_to_itself():
    ledger = Ledger()
    ledger.move(1, "a", "a", 70)
    assert ledger.balance("a") == 0
    assert ledger.accounts() == ["a"]
