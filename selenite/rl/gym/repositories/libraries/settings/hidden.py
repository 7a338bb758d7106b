from conf.document import SettingsError, lookup, merge, parse
from conf.values import parse_value, split_list


def refusal(text):
    try:
        parse(text)
    except SettingsError as error:
        return str(error)
    return "nothing was refused"


def test_values():
    assert [parse_value(text) for text in ("0", "-0", "007", "-x", "-", "1.5", "", '"', '""')] == [
        0,
        0,
        7,
        "-x",
        "-",
        "1.5",
        "",
        '"',
        "",
    ]
    assert [parse_value(text) for text in ('" a "', '"yes"', "yes no", "[no", "no]")] == [
        " a ",
        "yes",
        "yes no",
        "[no",
        "no]",
    ]


def test_lists():
    assert parse_value('[ "a, b" , [no, [2]], -7 ]') == ["a, b", [False, [2]], -7]
    assert parse_value('["]", "["]') == ["]", "["]
    assert split_list("") == []
    assert split_list("a,") == ["a", ""]
    assert split_list("[a,b],[c]") == ["[a,b]", "[c]"]


def test_documents():
    text = '# all\nname = "x # y" # z\n[ one ]\nlist = [1, 2]\n[two]\nlist = []\n[one]\nmore = no\n'
    assert parse(text) == {
        "": {"name": "x # y"},
        "one": {"list": [1, 2], "more": False},
        "two": {"list": []},
    }
    assert parse("\n#\n") == {}
    assert parse("a = b = c") == {"": {"a": "b = c"}}


def test_errors():
    assert refusal("= 1") == "line 1: no name and value"
    assert refusal("# x\n[a]\nb = 1\nb = 1") == "line 4: b again"
    assert refusal("[a]\nb = 1\n[c]\nb = 1") == "nothing was refused"
    assert refusal("word") == "line 1: no name and value"


def test_merging():
    base = {"a": {"x": 1}}
    merged = merge(base, {"a": {"x": 2, "y": 3}, "b": {}})
    assert merged == {"a": {"x": 2, "y": 3}, "b": {}}
    assert base == {"a": {"x": 1}}


def test_looking_up():
    settings = {"": {"level": 3, "x": 0}, "net": {"port": 80}, "net.tls": {"on": False}}
    assert lookup(settings, "net.tls.on") is False
    assert lookup(settings, "net.level") == 3
    assert lookup(settings, "log.level") == 3
    assert lookup(settings, "log.level", 9) == 9
    assert lookup(settings, "nothing") is None
    assert lookup(settings, "nothing", 4) == 4
    assert lookup(settings, "net.x") == 0
