"""The page of a run in headless Chromium, from the disk."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from selenite.rl.page.write import write_page
from selenite.rl.rollout import Rollout
from tests.fixtures.rl_run import metrics, write_run

NEEDS = "the page's tests need Chromium and playwright: "
playwright = pytest.importorskip(
    "playwright.sync_api", reason=NEEDS + "pip install -c constraints.txt playwright"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip(NEEDS + "apt-get install chromium", allow_module_level=True)

from playwright.sync_api import Browser, Page, expect  # noqa: E402

IMAGE = "<img src=x onerror='window.hacked = 1'>"
HACK = f"</script><script>window.hacked = 1</script>{IMAGE}<!--<script>\u2028{{data}}{{scripts}}"


@pytest.fixture(scope="module")  # and no longer: playwright's loop runs in this thread
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        launched = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[list[Rollout]]]]:
    folder = tmp_path_factory.mktemp("page") / "run"
    made = write_run(folder)
    write_page(folder, folder / "page.html")
    return folder / "page.html", made


class Opened:
    """A page from the disk, and all that it asked for and complained of."""

    def __init__(self, browser: Browser, file: Path, **options: Any) -> None:
        self.context = browser.new_context(locale="en-US", **options)
        self.page: Page = self.context.new_page()
        self.requests: list[str] = []
        self.refused: list[tuple[str, str | None]] = []  # requests, and by what
        self.complaints: list[str] = []
        self.page.on("request", lambda it: self.requests.append(it.url))
        self.page.on("requestfailed", lambda it: self.refused.append((it.url, it.failure)))
        self.page.on("console", lambda it: self.complaints.append(it.text))
        self.page.on("pageerror", lambda it: self.complaints.append(str(it)))
        self.page.goto(file.as_uri())

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def page(browser: Browser, run: tuple[Path, Any]) -> Iterator[Page]:
    """On a desktop; whatever a test does, nothing is loaded and nothing is wrong."""
    opened = Opened(browser, run[0], viewport={"width": 1280, "height": 900})
    yield opened.page
    opened.close()
    assert opened.requests == [run[0].as_uri()]
    assert opened.complaints == []


def values_of(page: Page, chart: str, line: str) -> list[float]:
    """What a line of a chart says, read by the marks at its side."""
    found = page.evaluate(
        """([chart, line]) => {
          const figure = document.querySelector(`[data-chart="${chart}"]`);
          const marks = [...figure.querySelectorAll(".tick")].map((tick) => [
            Number(tick.querySelector("line").getAttribute("y1")),
            tick.querySelector("text").textContent]);
          return [marks, figure.querySelector(`[data-line="${line}"]`).getAttribute("d")];
        }""",
        [chart, line],
    )
    marks, drawn = found
    (y0, first), (y1, last) = marks[0], marks[-1]
    heights = [float(text) for text in re.findall(r"[ML][\d.]+ ([\d.-]+)", drawn)]
    is_log = "e" in first
    low, high = (float(text.split("e")[1] if is_log else text) for text in (first, last))
    read = [low + (y - y0) / (y1 - y0) * (high - low) for y in heights]
    return [10**value for value in read] if is_log else read


@pytest.mark.parametrize(
    ("chart", "line", "metric"),
    [
        ("Reward", "locks", "reward.locks"),
        ("Reward", "sums", "reward.sums"),
        ("Length", "sums", "length.sums"),
        ("Length", "all", "length"),
        ("Length", "locks, at most", "limit.locks"),
        ("Entropy", "all", "entropy"),
        ("Not learnt, or cut", "degenerate", "degenerate"),
        ("Staleness", "stale", "stale"),
        ("Mismatch", "largest", "mismatch_max"),
        ("Mismatch", "mean", "mismatch_mean"),
    ],
)
def test_charts_draw_what_was_measured(
    page: Page, run: tuple[Path, Any], chart: str, line: str, metric: str
) -> None:
    measured = [metrics(step, groups)[metric] for step, groups in enumerate(run[1])]
    assert values_of(page, chart, line) == pytest.approx(measured, rel=0.02, abs=0.005)


def test_evaluations_are_drawn_where_they_were(page: Page) -> None:
    assert values_of(page, "Reward", "sums, held out") == pytest.approx(
        [0.1, 1.05, 1.15, 1.25], abs=0.01
    )
    # A value that is missing is no 0.
    assert len(values_of(page, "Not learnt, or cut", "failed")) == 5


def test_the_time_is_stacked(page: Page) -> None:
    bars = page.locator('[data-chart="Time"] .area')
    names = [bars.nth(i).get_attribute("data-line") for i in range(bars.count())]
    assert names == ["generating", "tools", "scoring", "training", "syncing"]
    boxes = {name: bars.nth(i).bounding_box() for i, name in enumerate(names)}
    heights = [boxes[name]["height"] for name in names]
    assert [h / heights[4] for h in heights] == pytest.approx([3, 2, 1, 3, 1], rel=0.1)
    for lower, upper in pairwise(names):  # each stands on the one below
        top = boxes[upper]["y"] + boxes[upper]["height"]
        assert top == pytest.approx(boxes[lower]["y"], abs=0.5)
    mark = page.locator('[data-chart="Time"] .tick').filter(has_text=re.compile("^10$"))
    line = mark.locator("line").bounding_box()
    assert line is not None
    assert boxes["syncing"]["y"] == pytest.approx(line["y"], abs=1)  # a step took 10 s
    expect(legend(page, "Time", "training")).to_have_text("30 %")


def legend(page: Page, chart: str, entry: str) -> playwright.Locator:
    """The value that a chart tells of one of its lines."""
    items = page.locator(f'[data-chart="{chart}"] .legend li')
    return items.filter(has_text=re.compile(rf"^{entry} [^,]*$")).locator("b")


def test_one_cursor_moves_through_all_charts(page: Page) -> None:
    expect(legend(page, "Reward", "locks")).to_have_text("0.6")
    page.focus("#cursor")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#cursor-step")).to_have_text("2")
    expect(legend(page, "Reward", "locks")).to_have_text("0.2")
    expect(legend(page, "Mismatch", "largest")).to_have_text("0.001")
    expect(legend(page, "Time", "training")).to_have_text("3 s")
    box = page.locator('[data-chart="Length"] svg').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.995 * box["width"], box["y"] + 20)
    expect(legend(page, "Length", "all")).to_have_text("15")
    page.click("#whole")
    expect(legend(page, "Time", "training")).to_have_text("30 %")


def said(page: Page, column: int) -> playwright.Locator:
    return page.locator(".column").nth(column).locator(".message.assistant").last


def test_columns_are_steps_that_sliders_choose(page: Page) -> None:
    # First, middle and last step, the best attempt of each.
    for column, step in enumerate((0, 3, 5)):
        expect(said(page, column)).to_contain_text(f"Step {step}, attempt 2.")
    sliders = page.get_by_role("slider", name="Step of column")
    sliders.nth(0).focus()
    page.keyboard.press("ArrowRight")
    expect(said(page, 0)).to_contain_text("Step 1, attempt 2.")
    expect(sliders.nth(0)).to_have_attribute("aria-valuetext", "step 2")
    expect(said(page, 1)).to_contain_text("Step 3, attempt 2.")
    following = page.get_by_role("button", name="Next attempt of column A")
    for number in (0, 3, 1):  # rewards 0.2, 0 and -0.5
        following.press("Enter")
        expect(said(page, 0)).to_contain_text(f"Step 1, attempt {number}.")
    expect(following).to_be_disabled()
    expect(page.get_by_role("button", name="Previous attempt of column A")).to_be_focused()


def test_an_attempt_is_told_in_full(page: Page) -> None:
    column = page.locator(".column").first
    expect(column.locator(".reward")).to_have_text("0.4")
    expect(column.locator(".head")).to_contain_text("its group 0.0333")
    expect(column.locator(".status")).to_have_text("done")
    rows = column.locator(".checks tbody tr")
    expect(rows.first).to_have_text("open0.4it is still locked")
    expect(rows.last).to_have_text("2 checks1hold: said, polite")
    messages = column.locator(".message")
    expect(messages).to_have_text(
        [
            "userOpen the lock of task 7.",
            'assistantHm.try{\n "digits": "02"\n}',
            "tool[true, false]",
            "assistantStep 0, attempt 2.",
        ]
    )


def test_filters(page: Page) -> None:
    page.get_by_label("First").select_option("lowest reward")
    expect(said(page, 0)).to_contain_text("Step 0, attempt 1.")
    page.get_by_label("First").select_option("highest reward")
    page.get_by_label("Ended").select_option("truncated")
    expect(said(page, 2)).to_contain_text("Step 5, attempt 1.")
    expect(page.locator(".status")).to_have_text(["truncated"] * 3)
    page.get_by_label("Ended").select_option("failed")
    expect(page.locator(".reason")).to_have_text(["its disk is full"] * 3)
    expect(page.locator(".column").first).to_contain_text("it was not scored")
    page.get_by_label("Ended").select_option("in any way")
    # The task that came at every step is named as such; those of the other came once.
    assert page.locator("[name=task] option").all_text_contents() == ["every one", "7, at 6 steps"]
    page.get_by_label("Environment").select_option("sums")
    tasks = page.locator("[name=task] option").all_text_contents()
    assert tasks == ["every one", "0", "1", "2", "3", "4", "5"]
    page.get_by_label("Task").select_option("4")
    for column in range(3):
        expect(said(page, column)).to_contain_text("Step 4, attempt 2.")
        expect(page.get_by_role("slider", name="Step of column").nth(column)).to_be_disabled()
    page.get_by_label("Task").select_option("every one")


def test_tokens_have_their_probability_and_their_weights(
    page: Page, run: tuple[Path, list[list[list[Rollout]]]]
) -> None:
    rollout = run[1][0][0][2]
    page.get_by_label("Show").select_option("tokens by probability")
    column = page.locator(".column").first
    tokens = column.locator(".tokens span")
    expect(tokens).to_have_count(rollout.num_sampled)
    classes = tokens.evaluate_all("(all) => all.map((it) => it.className)")
    levels = {0.95: "p0", 0.6: "p1", 0.2: "p2", 0.05: "p3", 0.001: "p4"}
    probabilities = [float(p) for p in rollout.engine_logprobs_T[rollout.is_sampled_T]]
    expected = [
        min(levels.items(), key=lambda level: abs(level[0] - 2.718281828**p))[1]
        for p in probabilities
    ]
    assert classes == expected
    expect(column.locator(".tokens").first).to_have_text("It heard 02.")
    expect(column.locator("pre.between").last).to_have_text("The lock is open.")
    column.locator("summary").press("Enter")
    expect(column.locator("details pre")).to_have_text("Open the lock.")
    page.get_by_label("Show").select_option("tokens by weights")
    expect(column.locator(".keys")).to_have_text("Weights: 01")
    turns = column.locator(".tokens")
    expect(turns.nth(0).locator(".v0")).to_have_count(turns.nth(0).locator("span").count())
    expect(turns.nth(1).locator(".v1")).to_have_count(turns.nth(1).locator("span").count())
    expect(tokens.last).to_have_attribute("title", re.compile("^probability .*, weights 1, id"))


def test_what_is_hostile_stays_text(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x>"
    write_run(folder, steps=2, dress=lambda text: text + HACK)
    write_page(folder, tmp_path / "page.html")
    opened = Opened(browser, tmp_path / "page.html")
    page = opened.page
    for view in ("messages", "tokens by probability", "tokens by weights"):
        page.get_by_label("Show").select_option(view)
        for _ in range(3):
            page.get_by_role("button", name="Next attempt of column A").press("Enter")
        expect(page.locator(".column").first).to_contain_text("window.hacked")
    expect(page.locator("h1")).to_have_text("<img src=x>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert opened.requests == [(tmp_path / "page.html").as_uri()]
    assert opened.complaints == []
    # And where text became markup after all, nothing of it would run or be loaded.
    page.evaluate("(text) => document.body.insertAdjacentHTML('beforeend', text)", IMAGE)
    page.evaluate(
        """() => document.body.append(
          Object.assign(document.createElement("script"), { textContent: "window.hacked = 1" }))"""
    )
    page.evaluate("document.images[0].decode().catch(() => null)")  # until it is refused
    assert page.evaluate("window.hacked") is None
    assert [failure for _, failure in opened.refused] == ["csp"]
    assert any("Content Security Policy" in text for text in opened.complaints)
    opened.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_all_of_it(browser: Browser, run: tuple[Path, Any], scheme: str) -> None:
    opened = Opened(
        browser, run[0], viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True
    )
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 20, 26)") == (scheme == "dark")
    said(page, 2).scroll_into_view_if_needed()
    expect(said(page, 2)).to_be_in_viewport()
    opened.close()
    assert opened.complaints == []


def test_without_a_tokenizer_messages_are_left(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=1)
    (tmp_path / "model" / "tokenizer.json").unlink()
    write_page(tmp_path / "run", tmp_path / "page.html")
    opened = Opened(browser, tmp_path / "page.html")
    expect(opened.page.locator("#no-tokens")).to_contain_text("tokenizer cannot be read")
    expect(opened.page.locator("[name=view] option:disabled")).to_have_count(2)
    expect(said(opened.page, 0)).to_contain_text("Step 0, attempt 2.")
    opened.close()
    assert opened.complaints == []


def test_a_run_without_rollouts_has_its_charts(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=100)
    shutil.rmtree(tmp_path / "run" / "rollouts")
    write_page(tmp_path / "run", tmp_path / "page.html")
    opened = Opened(browser, tmp_path / "page.html")
    expect(opened.page.locator("#none")).to_have_text(re.compile("^No attempts are on this page"))
    # So many steps have a thin line of themselves, and a thick one of their running mean.
    assert len(values_of(opened.page, "Reward", "locks")) == 100
    expect(opened.page.locator('[data-chart="Reward"] [data-line="locks"]')).to_have_count(2)
    opened.close()
    assert opened.complaints == []
