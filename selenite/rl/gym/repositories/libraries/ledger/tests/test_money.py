from books.money import parse, show, split


def test_amounts_are_read():
    assert parse("12.34") == 1234
    assert parse(" 1,234.5 ") == 123450
    assert parse("-3") == -300


def test_too_many_decimals_are_refused():
    said = ""
    try:
        parse("1.234")
    except ValueError as error:
        said = str(error)
    assert said == "more than two decimals"


def test_amounts_are_shown():
    assert show(123456) == "1,234.56"
    assert show(-5) == "-0.05"
    assert show(0) == "0.00"


def test_parts_add_up():
    assert split(100, 3) == [34, 33, 33]
    assert split(8, 4) == [2, 2, 2, 2]
