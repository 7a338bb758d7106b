"""The web page in headless Chromium, against a real server process."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.fixtures.scripted_server import Answer, delta, scripted_server, sse
from tests.fixtures.server import KEY, ServerProcess

NEEDS = "the web page's tests need Chromium and playwright: "
playwright = pytest.importorskip(
    "playwright.sync_api", reason=NEEDS + "pip install -c constraints.txt playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip(NEEDS + "apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, Request, Route, expect  # noqa: E402

SIZES = {"phone": (390, 844), "desktop": (1280, 800), "zoomed": (320, 256)}
CHATS = "**/v1/chat/completions"
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
            has_touch=size == "phone",
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
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", lambda it: self.complaints.append(it.text))
        self.page.on("pageerror", lambda it: self.complaints.append(str(it)))
        self.page.route(CHATS, without_end)
        self.page.goto(server.url)

    def _asked(self, request: Request) -> None:
        self.requests.append(request)
        self.hosts.add(urlsplit(request.url).netloc)  # now: a test may divert it afterwards


@pytest.fixture
def opened(browser: Browser, server: ServerProcess) -> Iterator[Opened]:
    """On a desktop; whatever a test does, nothing leaves the machine and nothing is wrong."""
    opened = Opened(browser, server, "desktop", KEY)
    yield opened
    opened.context.close()
    assert opened.hosts == {urlsplit(server.url).netloc}
    assert opened.complaints == []


@pytest.fixture
def page(opened: Opened) -> Page:
    expect(opened.page.locator("#model")).to_have_value("tiny")
    return opened.page


@pytest.fixture
def phone(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    opened = Opened(browser, server, "phone", KEY)
    expect(opened.page.locator("#model")).to_have_value("tiny")
    yield opened.page
    opened.context.close()
    assert opened.complaints == []


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

    page.route(CHATS, fulfil, times=1)


@contextmanager
def streaming(page: Page, *steps: tuple[float, str], is_cut: bool = False) -> Iterator[None]:
    """Chats are answered with these texts, each after its seconds."""
    pieces = [
        (seconds, sse({"id": "chatcmpl-0123456789"} | delta(content=text)))
        for seconds, text in steps
    ]
    if not is_cut:
        pieces.append((0.0, sse({"id": "chatcmpl-0123456789"} | delta("stop")) + sse("[DONE]")))
    with scripted_server(lambda path, body: Answer(pieces, is_cut=is_cut)) as scripted:

        def divert(route: Route) -> None:
            route.continue_(url=scripted.url + "/v1/chat/completions")

        page.route(CHATS, divert)
        yield
        page.unroute(CHATS, divert)


def call(index: int, name: str) -> dict:
    """Of a tool, as a delta has it."""
    function = {"name": name, "arguments": '{"city": "Oslo"}'}
    return {"index": index, "id": f"functions.{name}:{index}", "function": function}


def at_end(page: Page) -> bool:
    """Whether the conversation is scrolled to its end."""
    return page.evaluate(
        "(it => it.scrollTop > 0 && it.scrollHeight - it.scrollTop - it.clientHeight < 2)"
        "(document.getElementById('log'))"
    )


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
    composing = "new KeyboardEvent('keydown', {key: 'Escape', isComposing: true, bubbles: true})"
    page.evaluate(f"document.getElementById('prompt').dispatchEvent({composing})")
    page.fill("#prompt", "And more.")
    page.press("#prompt", "Enter")
    expect(page.locator("#status")).to_contain_text("still being written")
    page.click("#stop")
    answered(page, "stopped")
    expect(page.locator("#status")).to_have_text("")
    expect(page.locator("#prompt")).to_have_value("And more.")
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
        say(page, "Hello.")
        expect(page.locator("#tools-note")).to_contain_text(why)
        expect(page.locator("#status")).to_contain_text(why)
        expect(page.locator("#tools")).to_be_focused()
    page.click("#example")
    expect(page.locator("#tools-note")).to_have_text("Offered: get_weather")
    expect(page.locator("#status")).to_have_text("")
    assert page.locator("#status").evaluate("it => getComputedStyle(it).display") == "block"
    at_once = page.locator("#tools").evaluate("""(it) => {
        it.value = "[";
        it.dispatchEvent(new Event("input"));
        return document.getElementById("tools-note").textContent;
    }""")
    assert at_once == "Offered: get_weather"
    expect(page.locator("#tools-note")).to_contain_text("not JSON")  # after a pause
    page.click("#example")
    page.fill("[name=top_p]", "3")
    page.press("#prompt", "Enter")
    expect(page.locator("#status")).to_contain_text("Top p")
    page.fill("[name=top_p]", "1")
    for seed in ("1.5", str(2**60)):
        say(page, "Hello.", seed=seed)
        expect(page.locator("#status")).to_contain_text("Seed")
    assert not [it for it in opened.requests if it.method == "POST"]
    expect(page.locator("#prompt")).to_have_value("Hello.")


def test_a_wrong_value_is_shown_where_it_is(phone: Page) -> None:
    top_p, note = phone.locator("[name=top_p]"), phone.locator("#sampling-note")
    phone.click("[data-show=settings]")
    top_p.fill("3")
    phone.click("[data-show=chat]")
    phone.fill("#prompt", "Hello.")
    phone.click("#send")
    expect(top_p).to_be_focused()
    expect(top_p).to_have_attribute("aria-invalid", "true")
    expect(top_p).to_have_accessible_description(re.compile("^Top p: "))
    expect(note).to_be_visible()
    top_p.fill("0.5")
    expect(top_p).not_to_have_attribute("aria-invalid", "true")
    expect(note).to_have_text("")
    expect(phone.locator("#status")).to_have_text("")


def test_enter_leads_through_the_results_of_several_calls(opened: Opened, page: Page) -> None:
    answer_with(page, {"tool_calls": [call(0, "f"), call(1, "g")]})
    say(page, "Call both.")
    first, second = page.get_by_label("Result of f"), page.get_by_label("Result of g")
    first.fill("1")
    first.press("Enter")
    expect(second).to_be_focused()
    second.fill("2")
    second.press("Enter")
    expect(page.locator(".assistant")).to_have_count(2)
    answered(page, "length")
    assert [it["content"] for it in sent(opened)["messages"][-2:]] == ["1", "2"]


def test_a_long_answer_is_drawn_by_frames(page: Page) -> None:
    page.evaluate("""() => {
        window.reads = 0;
        const { get } = Object.getOwnPropertyDescriptor(Element.prototype, "scrollHeight");
        const counted = { get() { window.reads++; return get.call(this); } };
        Object.defineProperty(Element.prototype, "scrollHeight", counted);
    }""")
    answer_with(page, *({"content": f"word {number} "} for number in range(3000)))
    say(page, "At length.")
    answered(page, "stop")
    written = "".join(f"word {number} " for number in range(3000))
    assert last(page, ".text").evaluate("it => it.textContent") == written
    assert last(page, ".text").evaluate("it => it.childNodes.length") > 5
    assert page.evaluate("window.reads") < 500  # each makes the browser lay the page out
    assert at_end(page)


def test_text_from_right_to_left_is_shown_so(page: Page) -> None:
    answer_with(page, {"content": "שלום"}, {"reasoning_content": "שלום"})
    page.fill("#prompt", "مرحبا")
    direction = "it => getComputedStyle(it).direction"
    assert page.locator("#prompt").evaluate(direction) == "rtl"
    page.press("#prompt", "Enter")
    answered(page, "stop")
    assert (
        page.locator(".text").evaluate_all("all => all.map(it => getComputedStyle(it).direction)")
        == ["rtl"] * 3
    )


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
    expect(page.locator(".left-out")).to_have_count(2)
    expect(last(page)).to_contain_text("Not part of the conversation.")
    expect(page.locator("#prompt")).to_have_value("Hello.")
    answer_with(page, {"content": "Well"}, end="")
    page.press("#prompt", "Enter")
    expect(page.get_by_role("alert").last).to_have_text("the answer broke off")
    with streaming(page, (0, "Well"), is_cut=True):
        page.press("#prompt", "Enter")
        expect(page.locator(".assistant")).to_have_count(3)
        expect(last(page).get_by_role("alert")).to_have_text("the answer broke off")
        assert "net::ERR_INCOMPLETE_CHUNKED_ENCODING" in opened.complaints.pop()
    with streaming(page, (5, "Too late.")):
        page.press("#prompt", "Enter")
        page.click("#stop")
        answered(page, "stopped")
    expect(page.locator(".left-out")).to_have_count(8)
    expect(page.locator("#prompt")).to_have_value("Hello.")
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
    for button in ("#stop", "#clear"):  # neither has to wait for the key
        say(page, "Hello.")
        page.click(button)
        expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator(".turn")).to_have_count(0)
    page.focus("#key")
    page.keyboard.insert_text("sk-é☃")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_contain_text("ASCII")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-note")).to_contain_text("no key of this server")
    page.keyboard.type(KEY)
    page.keyboard.press("Enter")
    expect(page.locator("#model")).to_have_value("tiny")
    expect(page.locator("#key-form")).to_be_hidden()
    say(page, "Hello again.")
    answered(page, "length")
    assert sent(opened)["messages"] == [{"role": "user", "content": "Hello again."}]
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


def test_the_focus_goes_from_send_to_stop_and_back(page: Page) -> None:
    with streaming(page, (0, "Well, "), (0.7, "hello.")):
        page.fill("#prompt", "Hello.")
        page.focus("#send")
        page.keyboard.down("Enter")
        page.keyboard.down("Enter")  # held: it must not stop what it began
        page.keyboard.up("Enter")
        expect(page.locator("#stop")).to_be_focused()
        answered(page, "stop ")
        expect(page.locator("#send")).to_be_focused()
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map(it => Number(it.tagName[1]))")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_on_a_phone_enter_is_a_new_line_and_the_log_follows_unseen(phone: Page) -> None:
    phone.fill("#prompt", "One line")
    phone.press("#prompt", "Enter")
    phone.keyboard.type("and another")
    expect(phone.locator("#prompt")).to_have_value("One line\nand another")
    expect(phone.locator("#prompt")).to_have_accessible_description("")
    with streaming(phone, (0, "A line\n" * 60), (0.5, "Another\n" * 60)):
        phone.click("#send")
        expect(last(phone, ".text")).to_contain_text("A line")
        assert phone.wait_for_function("document.getElementById('log').scrollTop > 0")
        phone.click("[data-show=live]")
        answered(phone, "stop ")
    phone.click("[data-show=chat]")
    phone.wait_for_timeout(100)  # a frame or more
    assert at_end(phone)


def test_every_field_and_button_has_a_name(page: Page) -> None:
    nameless = page.evaluate(
        "[...document.querySelectorAll('input, textarea, select, button, meter')]"
        ".filter(it => !it.labels?.length && !it.textContent.trim()).map(it => it.outerHTML)"
    )
    assert nameless == []


def test_the_panel_and_the_timeline_have_the_request(page: Page) -> None:
    totals = page.locator("#totals")
    expect(totals).to_contain_text("ended")
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


def test_the_panel_writes_what_changes_and_says_what_is_old(
    page: Page, server: ServerProcess
) -> None:
    expect(page.locator("#running")).to_have_text("0")
    page.evaluate("""() => {
        window.written = 0;
        const observer = new MutationObserver((changes) => { window.written += changes.length; });
        for (const node of document.querySelectorAll(".meter, #totals")) {
            observer.observe(node, { childList: true, characterData: true, subtree: true });
        }
    }""")
    with page.expect_response("**/stats"):
        pass
    expect(page.locator("#live :is(output, [role=status])")).to_have_count(1)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        expect(page.locator("#panel-status")).to_contain_text("the server does not answer")
        assert page.evaluate("window.written") == 0
        assert set(page.locator("#gauges dd").all_inner_texts()) == {"–"}
        assert page.locator("#bars").evaluate("it => getComputedStyle(it).opacity") == "0.5"
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    expect(page.locator("#running")).to_have_text("0")
    expect(page.locator("#panel-status")).to_have_text("")
    assert page.locator("#bars").evaluate("it => getComputedStyle(it).opacity") == "1"


def test_after_a_restart_the_models_are_listed_again(
    browser: Browser, server: ServerProcess
) -> None:
    def other(route: Route) -> None:
        route.fulfill(json={"data": [{"id": "other"}]})

    def fewer(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"ended": -1})

    opened = Opened(browser, server, "desktop", KEY)
    page = opened.page
    expect(page.locator("#model")).to_have_value("tiny")
    expect(page.locator("#totals")).to_contain_text("ended")
    page.route("**/v1/models", other)
    page.route("**/stats", fewer, times=1)
    expect(page.locator("#model")).to_have_value("other")
    page.unroute("**/v1/models", other)
    say(page, "Hello.")
    expect(page.get_by_role("alert")).to_contain_text("other")
    expect(page.locator("#model")).to_have_value("tiny")  # after a 404
    page.press("#prompt", "Enter")
    answered(page, "length")
    opened.context.close()


def test_bars_keep_to_the_times_and_are_told_apart(page: Page) -> None:
    expect(page.locator("#totals")).to_contain_text("ended")
    request = {"id": "0123456789", "index": 0, "arrival": 0.0, "first_scheduled": 1.0}
    request |= {"first_token": 1.01, "last_token": 21.0, "ended": 21.0, "prompt_tokens": 4}
    request |= {"cached_tokens": 2, "completion_tokens": 9, "preemptions": 0}
    answer = {"uptime": 30.0, "requests": [request | {"finish_reason": "stop"}]}
    page.route("**/requests", lambda route: route.fulfill(json=answer))
    page.reload()
    bar = page.locator("#bars svg")
    expect(bar).to_have_count(1)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert float(bar.locator(".cached").get_attribute("width") or "") < 1
        expect(bar.locator("title")).to_contain_text("prefill 10 ms (2 of 4 tokens cached)")
        ground = bar.evaluate("it => getComputedStyle(it).backgroundColor")
        for kind in ("queued", "cached", "prefill", "decode"):
            style = bar.locator(f".{kind}").evaluate(
                "it => [getComputedStyle(it).fill, getComputedStyle(it).stroke]"
            )
            assert contrast(style[0], ground) > 3
            assert style[1] == ground  # the gap between neighbours
    swatch = page.locator(".legend i").first
    assert swatch.evaluate("it => getComputedStyle(it).forcedColorAdjust") == "none"


def contrast(one: str, other: str) -> float:
    """Of two colours ``rgb(r, g, b)``, as WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("size", SIZES)
def test_no_layout_scrolls_sideways(browser: Browser, server: ServerProcess, size: str) -> None:
    opened = Opened(browser, server, size, KEY)
    page = opened.page
    expect(page.locator("#model")).to_have_value("tiny")
    page.mouse.move(100, 20)
    page.mouse.wheel(0, 1000)  # where the page is cut, nothing is out of reach
    expect(page.locator("#send")).to_be_in_viewport(ratio=1)
    tools = json.dumps([TOOL | {"name": "d" * 200}])
    calls = {"tool_calls": [call(0, "d" * 64)]}
    answer_with(page, {"content": "a" * 500}, {"reasoning_content": "b" * 500}, calls)
    page.evaluate("it => { document.getElementById('tools').value = it; }", tools)
    page.fill("#prompt", "c" * 500)
    page.click("#send")
    answered(page, "stop")
    for view in ("chat", "settings", "live"):
        if size != "desktop":
            page.click(f"[data-show={view}]")
        expect(page.locator(f"#{view}")).to_be_visible()
        wide = page.evaluate(
            "[document.documentElement, ...document.querySelectorAll('main, section, #log')]"
            ".filter(it => it.scrollWidth > it.clientWidth).map(it => it.id || it.tagName)"
        )
        assert wide == []
    opened.context.close()
    assert opened.complaints == []
