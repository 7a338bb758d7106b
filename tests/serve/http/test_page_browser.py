"""The web page in headless Chromium, against a real server process."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.fixtures.server import KEY, ServerProcess

NEEDS = "the web page's tests need Chromium and playwright: "
playwright = pytest.importorskip(
    "playwright.sync_api", reason=NEEDS + "pip install -c constraints.txt playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip(NEEDS + "apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, Request, Route, expect  # noqa: E402

SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
TOOL = {
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 6}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")  # and no longer: playwright's loop runs in this thread
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        launched = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


def without_end(route: Route) -> None:
    """A model of random weights must not end an answer by chance, on some processor."""
    body = json.loads(route.request.post_data or "")
    route.continue_(post_data=json.dumps(body | {"ignore_eos": True}))


class Opened:
    """A page with the key, and all that it asked for and complained of."""

    def __init__(self, browser: Browser, server: ServerProcess, size: str, key: str | None) -> None:
        width, height = SIZES[size]
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            http_credentials={"username": "", "password": KEY},
            locale="en-US",
        )
        if key is not None:
            script = f"sessionStorage.setItem('selenite-api-key', {json.dumps(key)})"
            self.context.add_init_script(script)
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        expect.set_options(timeout=20_000)
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda it: self.requests.append(it))  # no builtin is taken
        self.page.on("console", lambda it: self.complaints.append(it.text))
        self.page.on("pageerror", lambda it: self.complaints.append(str(it)))
        self.page.route("**/v1/chat/completions", without_end)
        self.page.goto(server.url)


@pytest.fixture
def opened(browser: Browser, server: ServerProcess) -> Iterator[Opened]:
    """On a desktop; whatever a test does, nothing leaves the machine and nothing is wrong."""
    opened = Opened(browser, server, "desktop", KEY)
    yield opened
    opened.context.close()
    assert {urlsplit(it.url).netloc for it in opened.requests} == {urlsplit(server.url).netloc}
    assert opened.complaints == []


@pytest.fixture
def page(opened: Opened) -> Page:
    expect(opened.page.locator("#model")).to_have_value("tiny")
    return opened.page


def say(page: Page, text: str, **settings: object) -> None:
    """Sends a message by the keyboard, with these sampling settings."""
    for name, value in ({"max_tokens": 12, "seed": 3} | settings).items():
        page.fill(f"[name={name}]", str(value))
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def last(page: Page, part: str = "") -> playwright.Locator:
    return page.locator(f".assistant {part}").last


def answered(page: Page, reason: str) -> None:
    expect(last(page, ".foot")).to_have_text(re.compile(f"^{reason}"))


def answer_with(page: Page, *deltas: dict, end: str = "data: [DONE]\n\n") -> None:
    """The next chat's answer is this stream."""

    def fulfil(route: Route) -> None:
        choices = [{"index": 0, "delta": delta} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        chunks = [{"id": "chatcmpl-0123456789", "choices": [choice]} for choice in choices]
        body = "".join(f": keep-alive\n\ndata: {json.dumps(chunk)}\n\n" for chunk in chunks)
        route.fulfill(body=body + end, content_type="text/event-stream")

    page.route("**/v1/chat/completions", fulfil, times=1)


def sent(opened: Opened) -> dict:
    """The body of the last chat."""
    chats = [it for it in opened.requests if it.url.endswith("/v1/chat/completions")]
    return json.loads(chats[-1].post_data or "")


# --- chat


def test_a_chat_streams_and_the_next_turn_has_the_history(opened: Opened, page: Page) -> None:
    page.fill("[name=system]", "Be brief.")
    page.fill("[name=stop]", "never-written\nnor this")
    say(page, "Hello, fox.", temperature=0.5, top_p=0.9, top_k=40, min_p=0.01)
    answered(page, "length")
    expect(last(page, ".foot")).to_contain_text("answer 12 tokens")
    body = sent(opened)
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "seed": 3}
    wanted |= {"max_tokens": 12, "stream": True, "model": "tiny"}
    wanted |= {"stop": ["never-written", "nor this"], "stream_options": {"include_usage": True}}
    assert wanted.items() <= body.items()
    assert [it["role"] for it in body["messages"]] == ["system", "user"]
    answer_with(page, {"content": "Well, "}, {"content": "hello."})
    say(page, "And again.")
    expect(last(page, ".text")).to_have_text("Well, hello.")
    say(page, "A third time.")
    expect(page.locator(".assistant")).to_have_count(3)
    answered(page, "length")
    assert sent(opened)["messages"][-2]["content"] == "Well, hello."
    page.click("#clear")
    expect(page.locator(".turn")).to_have_count(0)


def test_stop_ends_the_request_and_the_panel_sees_it(page: Page) -> None:
    say(page, "Go on for ever.", max_tokens=3000, temperature=0)
    expect(page.locator("#running")).to_have_text("1")
    expect(page.locator("#kv-text")).not_to_contain_text("(0 of")
    expect(page.locator("#rate")).not_to_have_text("0")
    expect(page.locator("#bars .end").first).to_contain_text("running")
    page.click("#stop")
    answered(page, "stopped")
    expect(page.locator("#running")).to_have_text("0")
    expect(page.locator("#bars .end").first).to_contain_text("abort")
    expect(page.locator("#send")).to_be_visible()


def test_a_tool_call_is_shown_and_its_result_goes_back(opened: Opened, page: Page) -> None:
    page.fill("#tools", json.dumps([TOOL]))
    expect(page.locator("#tools-note")).to_have_text("Offered: weather")
    page.select_option("#tool-choice", label="weather")
    say(page, "How is the weather?", max_tokens=300)
    answered(page, "tool_calls")
    expect(last(page, ".call strong")).to_have_text("weather")
    arguments = last(page, ".call pre").inner_text()
    assert set(json.loads(arguments)) == {"city"}
    result = page.get_by_label("Result of weather")
    expect(result).to_be_focused()
    page.select_option("#tool-choice", "none")
    result.fill("<b>Rain</b>")
    result.press("Enter")
    expect(page.locator(".assistant")).to_have_count(2)
    expect(page.locator(".turn.tool .text")).to_have_text("<b>Rain</b>")
    answered(page, "(length|stop)")
    _, call, answer = sent(opened)["messages"]
    assert call["tool_calls"][0]["function"] == {"name": "weather", "arguments": arguments}
    assert answer["tool_call_id"] == call["tool_calls"][0]["id"]


def test_wrong_tools_are_told_before_anything_is_sent(opened: Opened, page: Page) -> None:
    for text, why in (("[", "not JSON"), ("{}", "write a list"), ("[{}]", "number 1 has no name")):
        page.fill("#tools", text)
        expect(page.locator("#tools-note")).to_contain_text(why)
        say(page, "Hello.")
        expect(page.locator("#status")).to_contain_text(why)
    page.click("#example")
    expect(page.locator("#tools-note")).to_have_text("Offered: get_weather")
    page.fill("[name=top_p]", "3")
    page.press("#prompt", "Enter")
    expect(page.locator("#status")).to_contain_text("Top p")
    assert not [it for it in opened.requests if it.method == "POST"]
    expect(page.locator("#prompt")).to_have_value("Hello.")


def test_what_a_model_writes_stays_text(page: Page) -> None:
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    begun = {"index": 0, "id": "functions.f:0", "function": {"name": "f", "arguments": ""}}
    rest = {"index": 0, "function": {"arguments": '{"a": '}}
    part = {"index": 0, "reason": "bad_json", "detail": "it ends early", "text": evil}
    answer_with(
        page,
        {"reasoning_content": evil},
        {"content": evil},
        {"tool_calls": [begun]},
        {"tool_calls": [rest]},
        {"malformed": [part]},
    )
    say(page, evil)
    answered(page, "stop")
    expect(last(page, ".reasoning p")).to_be_hidden()
    last(page, "summary").click()
    for place in (".reasoning p", "> .text", ".malformed pre"):
        expect(last(page, place)).to_have_text(evil)
    expect(page.locator(".user .text")).to_have_text(evil)
    expect(page.locator(".call:not(.malformed)")).to_have_count(0)  # it was taken back
    expect(page.locator("#log :is(img, script)")).to_have_count(0)


def test_errors_are_told_and_what_was_refused_is_not_sent_again(opened: Opened, page: Page) -> None:
    error = 'data: {"error": {"message": "the engine <i>failed</i>"}}\n\n'
    answer_with(page, {"content": "Well"}, end=error)
    say(page, "Hello.")
    expect(page.get_by_role("alert")).to_have_text("the engine <i>failed</i>")
    expect(page.locator("#prompt")).to_have_value("Hello.")
    answer_with(page, {"content": "Well"}, end="")
    page.press("#prompt", "Enter")
    expect(page.get_by_role("alert").last).to_have_text("the answer broke off")
    page.press("#prompt", "Enter")
    answered(page, "length")
    assert sent(opened)["messages"] == [{"role": "user", "content": "Hello."}]


def test_a_refusal_of_the_server_is_told(browser: Browser, server: ServerProcess) -> None:
    opened = Opened(browser, server, "desktop", KEY)
    expect(opened.page.locator("#model")).to_have_value("tiny")
    say(opened.page, "Hello.", max_tokens=100_000)
    expect(opened.page.get_by_role("alert")).to_contain_text("max_tokens=100000")
    opened.context.close()


def test_the_page_asks_for_the_key(browser: Browser, server: ServerProcess) -> None:
    opened = Opened(browser, server, "desktop", None)
    page = opened.page
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_contain_text("no key of this server")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_value("tiny")
    expect(page.locator("#key-form")).to_be_hidden()
    opened.context.close()
    assert all("401" in complaint for complaint in opened.complaints)


# --- keyboard, panel, layout


def test_everything_is_reached_by_keyboard(page: Page) -> None:
    expect(page.locator("#prompt")).to_be_focused()
    page.fill("[name=temperature]", "0")  # this text does not end by itself
    page.focus("#prompt")
    page.keyboard.type("One line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("and another")
    expect(page.locator("#prompt")).to_have_value("One line\nand another")
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    answered(page, "stopped")
    expect(page.locator("#prompt")).to_be_focused()
    seen = []
    for _ in range(14):
        page.keyboard.press("Tab")
        seen.append(
            page.evaluate(
                "(it => [it.id || it.name || it.tagName, getComputedStyle(it).outlineStyle])"
                "(document.activeElement)"
            )
        )
    assert [name for name, _ in seen] == [
        "clear", "send", "temperature", "top_p", "top_k", "min_p", "max_tokens", "seed", "stop",
        "system", "example", "tools", "SUMMARY", "BODY",
    ]  # fmt: skip
    assert all(outline == "solid" for name, outline in seen if name != "BODY")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_be_focused()


def test_every_field_and_button_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, textarea, select, button, meter')]"
        ".filter(it => !it.labels?.length && !it.textContent.trim()).map(it => it.outerHTML)"
    )
    assert nameless == []


def test_the_panel_and_the_timeline_have_the_request(page: Page) -> None:
    totals = page.locator("#totals")
    expect(totals).to_contain_text("answers")
    before = totals.inner_text()
    say(page, "Hello, fox.")
    answered(page, "length")
    (own,) = re.findall(r"request (\w{8})", last(page, ".foot").inner_text())
    expect(page.locator("#bars li").first).to_contain_text(own)
    expect(page.locator("#bars li").first).to_contain_text("+ 12")
    expect(page.locator("#bars li").first.locator("rect.decode")).to_have_count(1)
    expect(totals).not_to_have_text(before)
    page.locator("#live summary").click()
    row = page.locator("#rows tr").first
    expect(row.locator("th")).to_have_text(own)
    expect(row.locator("td").nth(5)).to_have_text("12")
    expect(row.locator("td").last).to_have_text("length")


@pytest.mark.parametrize("size", SIZES)
def test_no_layout_scrolls_sideways(browser: Browser, server: ServerProcess, size: str) -> None:
    opened = Opened(browser, server, size, KEY)
    page = opened.page
    expect(page.locator("#model")).to_have_value("tiny")
    answer_with(page, {"content": "a" * 500}, {"reasoning_content": "b" * 500})
    page.fill("#prompt", "c" * 500)
    page.press("#prompt", "Enter")
    answered(page, "stop")
    for view in ("chat", "settings", "live"):
        if size == "phone":
            page.click(f"[data-show={view}]")
        expect(page.locator(f"#{view}")).to_be_visible()
        wide = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('main, section, #log')]"
            ".filter(it => it.scrollWidth > it.clientWidth).map(it => it.id || it.tagName)"
        )
        assert wide == []
    opened.context.close()
    assert opened.complaints == []
