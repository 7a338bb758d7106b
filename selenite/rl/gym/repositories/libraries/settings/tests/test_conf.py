from conf.document import SettingsError, lookup, merge, parse
from conf.values import parse_value, split_list


def test_kinds_of_values():
    assert parse_value(" 12 ") == 12
    assert parse_value("-3") == -3
    assert parse_value("yes") is True
    assert parse_value("no") is False
    assert parse_value("some text") == "some text"
    assert parse_value('"12"') == "12"


def test_lists():
    assert parse_value("[1, yes, x]") == [1, True, "x"]
    assert parse_value("[]") == []


def test_lists_in_lists():
    assert parse_value("[[1, 2], 3]") == [[1, 2], 3]


def test_commas_in_quotes():
    assert split_list('"a,b",c') == ['"a,b"', "c"]


def test_sections():
    assert parse("a = 1\n[net]\nport = 80\n\n[log]") == {
        "": {"a": 1},
        "net": {"port": 80},
        "log": {},
    }


def test_comments():
    assert parse('a = 1 # one\n# b = 2\nc = "#3"') == {"": {"a": 1, "c": "#3"}}


def test_errors_name_the_line():
    said = ""
    try:
        parse("a = 1\n\nb")
    except SettingsError as error:
        said = str(error)
    assert said == "line 3: no name and value"


def test_a_name_comes_once():
    said = ""
    try:
        parse("a = 1\n a = 2")
    except SettingsError as error:
        said = str(error)
    assert said == "line 2: a again"


def test_the_other_counts():
    base = {"": {"a": 1}, "net": {"port": 80, "host": "x"}}
    assert merge(base, {"net": {"port": 81}, "log": {"on": True}}) == {
        "": {"a": 1},
        "net": {"port": 81, "host": "x"},
        "log": {"on": True},
    }


def test_values_are_looked_up():
    settings = {"": {"a": 1}, "net": {"port": 80}}
    assert lookup(settings, "net.port") == 80
    assert lookup(settings, "a") == 1
    assert lookup(settings, "net.a") == 1
    assert lookup(settings, "net.b", 5) == 5
