"""The report in a real browser: it draws, answers to the mouse, fits a phone, has a dark theme, asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

import autoseg.evidence.report.gradient as gradient
from autoseg.evidence.report.page import report
from autoseg.evidence.report.read import open_runs

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader "
    "--disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --hide-scrollbars"
).split()
LAPTOP, PHONE = (1440, 900), (390, 844)
PATIENCE_S = 60


def found(*names: str) -> str:
    """The first program there is; skips where there is none."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no {names[0]} on this machine; on Debian: apt-get install chromium chromium-driver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found("chromedriver")))
    driver.set_page_load_timeout(PATIENCE_S)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(search_run: Path, comparison_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient, "GRID", np.linspace(0.1, 0.9, 5))
        runs = open_runs([search_run, comparison_run])
        path.write_text(report(runs, ["autoseg search metric=miou " * 9] * 2), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> Callable[..., webdriver.Chrome]:
    """Opens the page at a size and theme; with `whole`, waits until all of it is drawn."""

    def open_at(size: tuple[int, int], dark: bool = False, whole: bool = False) -> webdriver.Chrome:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        theme(browser, dark)
        browser.get(page.as_uri())
        for place in browser.find_elements(By.CSS_SELECTOR, ".canvas") if whole else []:
            into_view(browser, place)
        return browser

    return open_at


def theme(browser: webdriver.Chrome, dark: bool) -> None:
    feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def wait(browser: webdriver.Chrome, until: Callable[[], Any]) -> Any:
    return WebDriverWait(browser, PATIENCE_S, poll_frequency=0.1).until(lambda _: until())


def into_view(browser: webdriver.Chrome, element: Any) -> Any:
    """Scrolls to an element; if it is a figure, waits until it is drawn."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
    if "canvas" in str(element.get_attribute("class")):
        wait(browser, lambda: element.get_attribute("data-drawn") is not None)
    return element


def show(browser: webdriver.Chrome, selector: str) -> Any:
    """An element in the middle of the window."""
    return into_view(browser, browser.find_element(By.CSS_SELECTOR, selector))


def test_it_draws_without_an_error_or_a_request(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(LAPTOP, whole=True)
    flat = """
        const figures = JSON.parse(document.getElementById('figures').textContent);
        return [...document.querySelectorAll('.canvas:not([data-drawn])')].filter(p => !figures[p.id].layout.scene)"""
    assert browser.execute_script(flat) == []  # surfaces that have left the window are taken down
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    drawn = browser.find_elements(By.CSS_SELECTOR, ".canvas.js-plotly-plot .main-svg")
    assert len(drawn) >= len(browser.find_elements(By.CSS_SELECTOR, ".canvas")) > 10
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert [name for name in asked if not name.startswith(("data:", "blob:"))] == []
    images = browser.execute_script("return [...document.images].filter(i => i.complete && !i.naturalWidth).length")
    assert images == 0


def test_pointing_at_a_candidate_shows_what_is_known_of_it(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(LAPTOP)
    show(browser, "#search-rewards .canvas")
    point = browser.find_elements(By.CSS_SELECTOR, "#search-rewards .scatterlayer .trace:nth-of-type(3) .point")[0]
    ActionChains(browser).move_to_element_with_offset(point, 1, 1).move_to_element(point).perform()
    shown = "#search-rewards .hoverlayer .hovertext"
    text = wait(browser, lambda: "".join(e.text for e in browser.find_elements(By.CSS_SELECTOR, shown)))
    assert "candidate" in text and "and.p1.x" in text and "reward" in text and "<b>" not in text


def test_a_surface_turns_when_it_is_dragged(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(LAPTOP)
    surface = show(browser, "#search-surfaces .canvas")
    camera = "return arguments[0]._fullLayout.scene._scene.getCamera().eye"
    before = browser.execute_script(camera, surface)
    actions = ActionChains(browser, duration=50).move_to_element(surface).click_and_hold()
    for _ in range(6):
        actions = actions.move_by_offset(15, 5)
    actions.release().perform()
    wait(browser, lambda: abs(browser.execute_script(camera, surface)["x"] - before["x"]) > 0.05)


def test_a_surface_that_leaves_the_window_comes_back_as_it_was_turned(opened: Callable[..., webdriver.Chrome]) -> None:
    """A browser keeps 16 of them, and blanks the first."""
    browser = opened(LAPTOP)
    surface = show(browser, "#search-surfaces .canvas")
    turned = {"x": 2.0, "y": 0.1, "z": 0.3}
    browser.execute_async_script(
        "Plotly.relayout(arguments[0], {'scene.camera.eye': arguments[1]}).then(arguments[2])", surface, turned
    )
    browser.execute_script("scrollTo(0, document.body.scrollHeight)")
    wait(browser, lambda: surface.get_attribute("data-drawn") is None)
    into_view(browser, surface)
    eye = browser.execute_script("return arguments[0]._fullLayout.scene._scene.getCamera().eye", surface)
    assert eye == pytest.approx(turned, abs=0.01)
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_phone_scrolls_up_and_down_only(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(PHONE, dark=True, whole=True)
    assert browser.execute_script("return innerWidth") == PHONE[0]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
    inside = "return [...document.querySelectorAll('.scroll')].some(box => box.scrollWidth > box.clientWidth)"
    assert browser.execute_script(inside), "no table is wider than a phone: this test shows nothing"


def test_the_theme_is_the_systems_also_while_it_changes(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(LAPTOP)
    look = """
        const plot = document.querySelector('#search-rewards .canvas');
        return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                plot._fullLayout.font.color, plot._fullData[2].marker.color,
                getComputedStyle(document.querySelector('[data-colour]')).color]"""
    show(browser, "#search-rewards .canvas")
    light = browser.execute_script(look)
    theme(browser, dark=True)
    wait(browser, lambda: browser.execute_script(look)[3] != light[3])
    dark = browser.execute_script(look)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    show(opened(LAPTOP, dark=True), "#search-rewards .canvas")
    assert browser.execute_script(look) == dark


def test_the_gallery_shows_the_loss_that_was_chosen(opened: Callable[..., webdriver.Chrome]) -> None:
    browser = opened(LAPTOP)
    choice = Select(show(browser, ".gallery select"))
    assert len(choice.options) == 2
    for option in [one.text for one in choice.options]:
        choice.select_by_visible_text(option)
        shown = [e for e in browser.find_elements(By.CSS_SELECTOR, ".gallery [data-of]") if e.is_displayed()]
        assert {e.get_attribute("data-of") for e in shown} == {option}
        assert len(shown) == 2 * (2 + 5)
