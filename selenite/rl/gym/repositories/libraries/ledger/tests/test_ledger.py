from books.ledger import Ledger


def filled():
    ledger = Ledger()
    ledger.move(1, "bank", "cash", 5000)
    ledger.move(3, "cash", "food", 1250)
    ledger.move(2, "cash", "rent", 3000)
    return ledger


def test_what_leaves_one_account_enters_another():
    ledger = filled()
    assert ledger.balance("cash") == 750
    assert ledger.balance("bank") == -5000
    assert ledger.balance("food") == 1250


def test_a_balance_of_a_day_has_that_day():
    ledger = filled()
    assert ledger.balance("cash", until=2) == 2000
    assert ledger.balance("cash", until=0) == 0


def test_a_limit_holds():
    ledger = filled()
    ledger.limit("cash", 50)
    assert ledger.move(4, "cash", "food", 701) is False
    assert ledger.balance("cash") == 750
    assert ledger.move(4, "cash", "food", 700) is True


def test_amounts_are_positive():
    said = ""
    try:
        Ledger().move(1, "a", "b", 0)
    except ValueError as error:
        said = str(error)
    assert said == "an amount must be positive"


def test_accounts_are_sorted():
    assert filled().accounts() == ["bank", "cash", "food", "rent"]


def test_a_statement_is_by_day():
    assert filled().statement("cash") == ["1 50.00 50.00", "2 -30.00 20.00", "3 -12.50 7.50"]
