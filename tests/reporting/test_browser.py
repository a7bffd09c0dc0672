"""The page in a browser: the divider cuts, zoom and keys move both pictures, nothing overflows, nothing is loaded."""

import json

import pytest

from basicsr.reporting.command import make_report
from tests.reporting import folders
from tests.reporting.browser import find_browser, open_browser

pytestmark = pytest.mark.slow
WIDTHS = (1280, 400)
CLIP = "getComputedStyle(document.querySelector('.above')).clipPath"
SCALE = "new DOMMatrix(getComputedStyle(document.querySelector('{} img')).transform).a"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    executable = find_browser()
    if executable is None:
        pytest.skip("no Chromium is installed; Debian's package is called chromium")
    with open_browser(executable, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A page with everything: pictures, histograms, losses, long labels."""
    root = tmp_path_factory.mktemp("report")
    pictures = folders.hr_pictures(root / "HR")
    common = {"hr": root / "HR", "pictures": pictures}
    paths = [folders.results(root, "fp", **common)]
    weights = {"weights": str(folders.experiment(root, "run") / "models/net_Q_latest.pth")}
    for method in ("MinMax", "2DQuant as released with a very long label<script>throw 1</script>"):
        paths.append(folders.results(root, method[:7], method, 2, 27.0, **common, **weights))
        (paths[-1] / "activations.json").write_text(json.dumps(folders.activations([0.5, 0.25])))
    make_report(paths, root / "report.html", "Comparison")
    return root / "report.html"


def place_of(page, selector):
    """Return the middle of an element in the window, which is scrolled to it."""
    return page.run(
        f"(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{block: 'center'}});"
        "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2, r.width]; })()"
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_or_fails_and_nothing_is_loaded(browser, report, width):
    browser.console.clear()
    browser.requests.clear()
    browser.open(report, width)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    sizes = browser.run("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert sizes[0] <= sizes[1]
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [report.as_uri()]
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth === 96)")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_divider_follows_mouse_and_keys(browser, report, width):
    browser.open(report, width)
    assert browser.run(CLIP) == "inset(0px 50% 0px 0px)"
    x, y, _ = place_of(browser, ".divider")
    stage = place_of(browser, ".stage")[2]
    x, y, _ = place_of(browser, ".divider")
    browser.mouse("mousePressed", x, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x + stage / 4, y, button="left", buttons=1)
    browser.mouse("mouseReleased", x + stage / 4, y, button="left", clickCount=1)
    assert float(browser.run(CLIP).split()[1].rstrip("%")) == pytest.approx(25, abs=1)
    browser.run("document.querySelector('.position').focus()")
    browser.key("End", 35)
    assert browser.run(CLIP) in ("inset(0px)", "inset(0px 0% 0px 0px)")
    browser.key("ArrowLeft", 37)
    assert browser.run(CLIP) == "inset(0px 0.5% 0px 0px)"


@pytest.mark.parametrize("width", WIDTHS)
def test_zoom_by_buttons_wheel_and_keys(browser, report, width):
    browser.open(report, width)
    scales = lambda: [browser.run(SCALE.format(side)) for side in (".above", ".below")]  # noqa: E731
    assert scales() == [1, 1]
    browser.run("document.querySelector('.in').click()")
    assert scales() == pytest.approx([1.5, 1.5])
    x, y, _ = place_of(browser, ".stage")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    assert scales() == pytest.approx([1.875, 1.875])
    browser.run("document.querySelector('.stage').focus()")
    browser.key("+", 187)
    assert (
        scales() == pytest.approx([2.8125, 2.8125]) and browser.run("document.querySelector('.zoom').value") == "2.8×"
    )
    browser.key("0", 48)
    assert scales() == [1, 1]
    for _ in range(20):
        browser.run("document.querySelector('.in').click()")
    assert scales() == [16, 16] and browser.run("document.querySelector('.in').disabled")
    assert browser.run("getComputedStyle(document.querySelector('.above img')).imageRendering") == "pixelated"


def test_any_two_versions_can_be_chosen(browser, report):
    browser.open(report, 1280)
    options = browser.run("[...document.querySelector('.left').options].map((one) => one.value)")
    assert options[:3] == ["HR", "bicubic", "FP"] and len(options) == 5
    before = browser.run("document.querySelector('.above img').src")
    browser.run(
        "(() => { const s = document.querySelector('.left'); s.value = 'bicubic'; s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run("document.querySelector('.tag-left').textContent") == "bicubic"
    assert browser.run("document.querySelector('.above img').src") != before
    browser.run(
        "(() => { const s = document.querySelector('.picture'); s.value = 'two'; s.dispatchEvent(new Event('change')); })()"
    )
    assert browser.run("document.querySelector('.above img').alt") == "two, bicubic"
