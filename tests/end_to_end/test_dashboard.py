# SPDX-License-Identifier: Apache-2.0
"""The dashboard of a real run, in a real browser: one run serves all of these tests, and the last of them end it."""

import asyncio
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

import insitu
from insitu.dashboard.derive import SHARES
from tests.end_to_end.browser import Pages, chromium
from tests.end_to_end.conftest import Start
from tests.end_to_end.programs.pictures import COLUMNS, ROWS, STEPS
from tests.end_to_end.runs import INSITU, LIMIT_S, Running, program
from tests.waiting import wait_until

pytestmark = [pytest.mark.in_order, pytest.mark.leaks_per_module]

T = TypeVar("T")

BOLD = "<b>bold</b>"
OPERATORS = {
    "stats": {"use": "moments", "of": "u", "over": "step", "window": 20},
    "series": {"use": "moments", "of": "u", "over": "space", "extremes": False},
    "spread": {"use": "histogram", "of": "u", "over": ["step", "space"], "window": 20, "bins": 8, "range": [0, 3000]},
    "modes": {"use": "pca", "of": "u", "components": 3, "window": 20},
    "marked": {"use": "moments", "of": BOLD, "over": "space", "extremes": False},
    "solid": {"use": "moments", "of": ["cube"], "over": "space", "extremes": False},
    "ends": {"use": "moments", "of": "line", "over": "space", "extremes": False},
    "cloud": {"use": "moments", "of": "atoms", "over": "space", "extremes": False},
}
#: Those whose results are stored: each is a figure, and a figure is what a page costs.
STORED = ["stats", "series", "spread", "modes", "marked"]
LEVEL = 1150.5


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in another thread: Playwright has a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asyncio.wait_for(work, LIMIT_S)).result()


class Shown:
    """A run and its dashboard."""

    def __init__(self, running: Running) -> None:
        self.running = running
        wait_until(lambda: "To look only" in running.stderr, LIMIT_S, "the address of the dashboard")
        self.operator, self.observer = re.findall(r"http://\S+", running.stderr)[:2]
        self.base = self.operator.rpartition("/")[0]
        self.token = self.operator.rpartition("=")[2]

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Ask for a page as a program does."""
        request = urllib.request.Request(f"{self.base}/{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture(scope="module")
def shown(start_shared: Start) -> Shown:
    running = start_shared(
        *program("pictures"),
        ranks=2,
        nodes=2,
        operators=OPERATORS,
        dashboard={"port": 0},
        run="shown",
        variables={"*": {"max_wait": 3}},
        simulation={"steps": STEPS},
        steering=[{"when": f"series.mean > {LEVEL}", "notify": "it is warm"}],
        outputs=[{"of": STORED}],
    )
    running.until("runs", "shown", "results.zarr", "series", "zarr.json", limit_s=2 * LIMIT_S)
    return Shown(running)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def operator(browser: Any, shown: Shown) -> Iterator[Pages]:
    """The pages of who has the operator's token: loaded once for all tests of one view."""
    pages = Pages(browser, shown.operator, viewport={"width": 1280, "height": 900})
    yield pages
    pages.close()


@pytest.fixture
def pages(operator: Pages) -> Iterator[Pages]:
    yield operator
    assert operator.errors == []


class TestDoor:
    def test_without_a_token_there_is_only_a_page_that_asks_for_one(self, shown: Shown) -> None:
        for path in ("", "run", "series", "nonsense", "metrics"):
            status, text = shown.get(path)
            assert status == 403
            assert shown.token not in text
        assert "A token is needed" in shown.get("run")[1]

    def test_a_wrong_token_is_said_to_be_wrong(self, shown: Shown) -> None:
        assert "This token is wrong" in shown.get("run?token=guess")[1]
        assert shown.get("run", Authorization="Bearer guess")[0] == 403

    def test_a_program_sends_the_token_in_its_headers(self, shown: Shown) -> None:
        status, text = shown.get("metrics", Authorization=f"Bearer {shown.token}")
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        assert families["insitu_steps_published"].samples[0].labels == {"run": "shown"}
        assert [sample.value for sample in families["insitu_ranks"].samples if sample.labels["state"] == "running"] == [
            2
        ]

        silent = [sample.value for sample in families["insitu_heartbeat_age_seconds"].samples]
        assert len(silent) == len(families["insitu_reader_lag_steps"].samples) == 2
        assert max(silent) < LIMIT_S

    def test_a_page_of_another_site_cannot_listen(self, shown: Shown) -> None:
        async def listen(**headers: str) -> WebSocketClientConnection:
            return await websocket_connect(
                HTTPRequest(f"{shown.base.replace('http', 'ws')}/feed?view=run", headers=headers)
            )

        with pytest.raises(Exception, match="403"):
            apart(listen(Origin="http://elsewhere.example", Authorization=f"Bearer {shown.token}"))

    def test_the_token_stays_neither_in_the_address_nor_in_a_script(self, pages: Pages, shown: Shown) -> None:
        assert "token" not in pages.page.url
        assert shown.token not in pages.page.evaluate("document.cookie")
        assert shown.token not in pages.page.content()


class TestRunView:
    def test_a_keyboard_reaches_the_views(self, pages: Pages) -> None:
        page = pages.show("run")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Run"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    def test_it_shows_this_run(self, pages: Pages) -> None:
        page = pages.show("run")
        pages.until("#link", "Live")
        assert page.text_content("h1").strip() == "shown"
        assert [row[:3:2] for row in pages.table("ranks-0")[1:]] == [["0", "running"], ["1", "running"]]
        assert len(pages.table("nodes-0")) == 3
        assert {row[0] for row in pages.table("operators-0")[1:]} == set(OPERATORS)
        assert max(pages.column("rate-0", "rate")) > 0
        shares = pages.columns("time-0", *SHARES)
        assert all(abs(sum(parts) - 1) < 1e-9 for parts in zip(*shares, strict=True))
        assert f"of {STEPS:,}" in page.text_content("[data-cards='progress-0']")
        assert "time left" in page.text_content("[data-cards='progress-0']")

    def test_the_pipeline_is_drawn_with_what_flows_along_each_edge(self, pages: Pages) -> None:
        page = pages.show("run")
        drawn = page.get_attribute("[data-drawing='pipeline-0'] svg", "aria-label")
        for edge in (f"{BOLD} to marked", "u to stats", "u to modes", "cube to solid", "series to results.zarr"):
            assert re.search(rf"{re.escape(edge)}, [\d.]+ [KM]?i?B/s", drawn)
        assert "solid to" not in drawn

    def test_a_name_that_is_markup_is_shown_as_it_is(self, pages: Pages) -> None:
        page = pages.show("run")
        assert BOLD in {row[0] for row in pages.table("variables-0")}
        assert page.query_selector("main td b, main svg b") is None

    def test_it_is_ready_soon(self, pages: Pages) -> None:
        page = pages.show("run")
        assert page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") < 10_000

    def test_it_goes_on_after_a_lost_connection(self, pages: Pages) -> None:
        page = pages.show("run")
        page.evaluate("socket_of_this_page().close()")
        pages.until("#link", "Not connected")
        before = int(page.evaluate("document.body.dataset.updates"))
        page.wait_for_function("before => document.body.dataset.updates > before", arg=before)
        pages.until("#link", "Live")

    def test_nothing_is_cut(self, pages: Pages, tmp_path: Path) -> None:
        look_at(pages, "run", tmp_path)


#: What takes a value has a name that is read out, and so has every picture.
UNNAMED = """() => Array.from(document.querySelectorAll("main :is(input, select, [role=img], [role=region])"))
    .filter((one) => !(one.labels && one.labels.length) && !one.getAttribute("aria-label") && !one.ariaLabel)
    .map((one) => one.outerHTML.slice(0, 120))"""


def look_at(pages: Pages, view: str, folder: Path) -> None:
    """See that nothing of a view is cut or without a name, on a wide and a narrow screen, light and dark."""
    page = pages.show(view)
    assert page.evaluate(UNNAMED) == []
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        pages.picture(folder, f"{view}-{scheme}-{width}")
    page.set_viewport_size({"width": 1280, "height": 900})
    page.emulate_media(color_scheme="light")


class TestSeriesView:
    def test_the_lines_are_the_results(self, pages: Pages) -> None:
        pages.show("series")
        steps, means = pages.columns("series.mean-0", "x", "y")
        first = 100 * (ROWS - 1) / 2 + (COLUMNS - 1) / 2
        assert len(steps) == len(means) > 5
        assert steps[0] == 0
        assert means == pytest.approx([first + step / 10 for step in steps])

    def test_a_histogram_lies_where_its_bins_are(self, pages: Pages) -> None:
        pages.show("series")
        assert pages.column("spread.count-0", "x") == pytest.approx([187.5 + 375 * k for k in range(8)])

    def test_a_rules_threshold_lies_across_what_it_looks_at(self, pages: Pages) -> None:
        page = pages.show("series")
        assert pages.column("series.mean-levels", "y") == [LEVEL]
        assert page.evaluate("model('series.variance-levels').data.y.length") == 0

    def test_components_are_bars_and_steps_a_way_in_their_plane(self, pages: Pages) -> None:
        """All cells of u rise alike from step to step: there is one component, which takes all of the variance."""
        pages.show("series")
        assert pages.column("modes.energy-0", "y") == pytest.approx([1, 0, 0], abs=1e-9)
        way = np.diff(pages.column("modes.series.projection-0", "x"))
        assert len(way) >= 19
        assert np.abs(way[:19]) == pytest.approx(np.full(19, np.sqrt(ROWS * COLUMNS)))

    def test_what_markup_says_is_text(self, pages: Pages) -> None:
        page = pages.show("series")
        assert page.query_selector("main i:not(.legend i), main b") is None
        assert BOLD in page.text_content("main")

    def test_nothing_is_cut(self, pages: Pages, tmp_path: Path) -> None:
        look_at(pages, "series", tmp_path)


class TestFieldsView:
    def test_the_picture_is_the_field_of_a_step(self, pages: Pages) -> None:
        page = pages.show("fields")
        text = pages.said("say-0", r"^u \[mol/L\] at step \d+, time [\d.]+: <i>how much</i>$")
        shape, values = pages.image("field-0")
        assert shape == [ROWS, COLUMNS]
        n = int(re.findall(r"step (\d+)", text)[0]) / 10
        field = 100.0 * np.arange(ROWS)[:, np.newaxis] + np.arange(COLUMNS) + n
        # Text and picture are of one update, but may be read of two; and a colour is one of 255.
        assert np.abs(np.reshape(values, shape) - field).max() < 2330 / 254 + 200
        assert np.ptp(np.reshape(values, shape) - field) < 2330 / 254 + 1e-3
        assert page.evaluate("model('field-0-plot').below[0].axis_label") == "x"

    def test_beside_it_is_what_was_stored(self, pages: Pages) -> None:
        pages.show("fields")
        pages.said("about-0", r"^stats\.mean \[mol/L\], result \d+: ")
        assert pages.image("stored-0")[0] == [ROWS, COLUMNS]

    def test_what_is_not_finite_is_no_colour(self, pages: Pages) -> None:
        page = pages.show("fields")
        page.select_option("#choice-variable", BOLD)
        pages.said("say-0", f"^{BOLD} at step")
        _, values = pages.image("field-0")
        u = 100.0 * np.arange(ROWS)[:, np.newaxis] + np.arange(COLUMNS)
        assert sum(value is None for value in values) == int(np.sum(u % 3 == 0))

    def test_a_slice_of_three_dimensions_is_chosen_by_a_slider(self, pages: Pages) -> None:
        page = pages.show("fields")
        page.select_option("#choice-variable", "cube")
        page.wait_for_selector("[id='choice-at dim_0']")
        page.fill("[id='choice-at dim_0']", "3")
        pages.said("say-0", "^cube at step")
        assert pages.image("field-0")[0] == [ROWS, COLUMNS]

    def test_one_dimension_is_a_line_and_particles_are_a_density(self, pages: Pages) -> None:
        page = pages.show("fields")
        page.select_option("#choice-variable", "line")
        pages.said("say-0", r"^line \[m\] at step")
        values = pages.column("line-0-0", "y")
        assert np.diff(values).tolist() == [100.0] * (ROWS - 1)
        page.select_option("#choice-variable", "atoms")
        pages.said("say-0", "^atoms at step .* over their first two columns")
        shape, counts = pages.image("field-0")
        assert shape == [128, 128]
        assert sum(counts) == pytest.approx(2 * COLUMNS, rel=0.02)

    def test_a_fixed_range_stays(self, pages: Pages) -> None:
        page = pages.show("fields")
        page.fill("#choice-low", "-5")
        page.press("#choice-low", "Enter")
        page.wait_for_function("model('field-0-colours').low === -5")

    def test_nothing_is_cut(self, pages: Pages, tmp_path: Path) -> None:
        look_at(pages, "fields", tmp_path)


class TestSteerView:
    def test_a_slider_that_is_moved_sets_its_parameter_and_the_receipt_comes(self, pages: Pages) -> None:
        page = pages.show("steer")
        page.wait_for_selector("#control-0-feed-feed")
        assert "<i>how fast</i>, from 0 to 1" in page.text_content("[data-name='feed']")
        page.focus("#control-0-feed-feed")
        page.keyboard.press("ArrowRight")
        pages.until("[data-table='receipts-0']", "feed: 0.25 to 0.251")
        assert pages.table("receipts-0")[1][1:5] == ["set", "feed: 0.25 to 0.251", "user:dashboard", "applied"]

    def test_what_does_not_fit_is_said_and_not_asked_for(self, pages: Pages) -> None:
        page = pages.show("steer")
        page.fill("#control-0-inlets-inlets", "[1, -2]")
        page.press("#control-0-inlets-inlets", "Enter")
        pages.until("[data-text='say-0']", "below the minimum 0.0")

    def test_pause_and_resume(self, pages: Pages, shown: Shown) -> None:
        page = pages.show("steer")
        for action in ("pause", "resume"):
            page.click(f"[data-name='{action}'] button")
            pages.until("[data-table='receipts-0'] tr:nth-child(2)", action)
            assert pages.table("receipts-0")[1][4] == "applied"

    def test_rules_are_switched(self, pages: Pages) -> None:
        page = pages.show("steer")
        page.uncheck("[data-name='rules'] input[type=checkbox]")
        page.click("[data-name='rules'] button")
        pages.until("[data-table='receipts-0'] tr:nth-child(2)", "rules")
        assert pages.table("receipts-0")[1][1:5] == ["rules", "rule_1: True to False", "user:dashboard", "applied"]

    def test_stop_asks_first(self, pages: Pages) -> None:
        page = pages.show("steer")
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.click("[data-name='stop'] button")
        assert asked == ["Stop the simulation? It ends after its next common step, and cannot be resumed."]
        assert "stop" not in {row[1] for row in pages.table("receipts-0")}

    def test_an_observer_is_told_so_and_cannot_even_if_the_page_says_so(
        self, browser: Any, shown: Shown, pages: Pages
    ) -> None:
        observer = Pages(browser, shown.observer, view="steer")
        observer.page.wait_for_selector("#control-0-feed-feed:disabled")
        assert "can look, and not touch" in observer.page.text_content("footer")
        observer.page.evaluate("ask_for(0, 'set', {feed: '0.9'})")
        page = pages.show("steer")
        page.focus("#control-0-feed-feed")
        page.keyboard.press("ArrowRight")  # what is asked for later is answered later
        for each in (pages, observer):
            each.until("[data-table='receipts-0']", "feed: 0.251 to 0.252")
            assert not any("0.9" in row[2] for row in each.table("receipts-0"))
        observer.close()

    def test_nothing_is_cut(self, pages: Pages, tmp_path: Path) -> None:
        look_at(pages, "steer", tmp_path)


class TestOtherViews:
    @pytest.mark.parametrize(
        ("view", "says"),
        [("log", "it is warm"), ("training", "Nothing is learnt in this run"), ("dask", "workers of a Dask cluster")],
    )
    def test_they_say_what_there_is(self, pages: Pages, tmp_path: Path, view: str, says: str) -> None:
        pages.show(view)
        pages.until("main", says)
        look_at(pages, view, tmp_path)


class TestManyLook:
    def test_twenty_get_the_same_and_cost_the_run_one_viewer(self, shown: Shown) -> None:
        async def look() -> list[str]:
            request = HTTPRequest(
                f"{shown.base.replace('http', 'ws')}/feed?view=run", headers={"Authorization": f"Bearer {shown.token}"}
            )
            viewers = [await websocket_connect(request) for _ in range(20)]
            slow = viewers[0]  # which never says that it has taken anything in
            said = ""
            for _ in range(3):
                for viewer in viewers[1:]:
                    said = str(await viewer.read_message())
                    await viewer.write_message("more")
            assert await slow.read_message() is not None
            for viewer in viewers:
                viewer.close()
            for viewer in viewers:  # the loop ends with this: what is not closed by then stays open
                while await viewer.read_message() is not None:
                    pass
            return [said]

        [said] = apart(look())
        assert '"name":"shown"' in said


def test_top_says_it_in_a_terminal(shown: Shown) -> None:
    done = subprocess.run(
        [*INSITU, "top", "--once", str(shown.running.directory)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    assert "shown  streaming" in done.stdout
    assert BOLD in done.stdout


def test_a_notebook_shows_the_run_and_serves_its_pages(shown: Shown) -> None:
    pytest.importorskip("matplotlib").use("agg")
    with insitu.attach(shown.running.directory) as run:
        assert "u to stats" in run._repr_html_()
        [line] = run.plot("line")
        assert np.diff(line.get_ydata()).tolist() == [100.0] * (ROWS - 1)
        line.figure.clear()
        where = run.dashboard()
        assert run.dashboard() is where
        assert f'href="{where.operator}"' in where._repr_html_()
        request = urllib.request.Request(
            f"http://127.0.0.1:{where.port}/run",
            headers={"Authorization": f"Bearer {where.observer.rpartition('=')[2]}"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            assert "shown" in answer.read().decode()


class TestEnd:
    """These end the run."""

    def test_a_staging_node_that_is_killed_is_said_to_be_gone(self, pages: Pages, shown: Shown) -> None:
        pages.show("run")
        worker = max(shown.running.descendants("spawn"), key=lambda process: process.memory_info().rss)
        worker.send_signal(signal.SIGKILL)
        pages.until("[data-table='nodes-0']", "gone")
        (shown.running.folder / "enough").touch()
        pages.until("#notice", "has ended: failed")
        pages.until("#link", "The run has ended")
        left = shown.running.wait()
        assert left.status == 1

    def test_it_can_be_looked_at_afterwards(self, browser: Any, shown: Shown, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.symlink_to(shown.running.directory)
        command = [*INSITU, "dashboard", "--port", "0", str(shown.running.directory), str(other)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, ExitStack() as stack:
            stack.callback(process.send_signal, signal.SIGINT)
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            pages = Pages(browser, url, viewport={"width": 1280, "height": 900})
            stack.callback(pages.close)
            pages.until("#link", "The runs have ended")
            assert pages.table("nodes-0") == pages.table("nodes-1")
            assert pages.page.query_selector_all(".column-name")[1].text_content() == str(other.resolve())
            pages.picture(tmp_path, "run-compared-1280")
            pages.show("series")
            assert pages.column("series.mean-0", "y") == pages.column("series.mean-1", "y")
            assert len(pages.column("series.mean-actions", "x")) >= 2  # of each step with actions
            assert pages.errors == []
        assert process.returncode == 0

    def test_its_report_needs_nothing_else(self, browser: Any, shown: Shown, tmp_path: Path) -> None:
        asked: list[str] = []
        page = browser.new_page(viewport={"width": 390, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto((shown.running.directory / "report.html").as_uri())
        assert len([url for url in asked if not url.startswith("data:")]) == 1
        assert BOLD in page.text_content("main")
        assert page.query_selector("main td b") is None
        assert page.query_selector("img").evaluate("image => image.naturalWidth") == COLUMNS
        assert "Staging node" in page.text_content("main")
        assert "node-gone" in page.text_content("main")
        assert "feed: 0.25 to 0.251" in page.text_content("main")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()
