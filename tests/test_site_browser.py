"""The site as a reader uses it: in a real browser, from a folder, without a network."""

from __future__ import annotations

import base64
import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import site_records
import torch
from browser import chromium, complaints, requests
from PIL import Image

from sap_art.per_image import SUFFIX, PerImage
from sap_art.site import build
from sap_art.site.pages import index_page
from sap_art.site.ranking import Ranking
from sap_art.site.reading import Entry
from sap_art.site.rows import rows_of

CONTROL, DOWN, ESCAPE = "\ue009", "\ue015", "\ue00c"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the gallery."""
    folder = tmp_path_factory.mktemp("browser")
    site_records.gallery(folder / "records")
    build.write(build.render(folder / "records"), folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """One browser for all, and where it puts what is downloaded."""
    downloads = tmp_path_factory.mktemp("downloads")
    with chromium(downloads) as browser:
        yield browser, downloads


@pytest.fixture
def browser(running: tuple[Any, Path], site: Path) -> Iterator[Any]:
    """After each test: nothing was said on the console, and nothing asked for but the site's own pages."""
    browser, downloads = running
    for path in downloads.iterdir():
        path.unlink()
    browser.get("about:blank")
    complaints(browser), requests(browser)
    yield browser
    assert complaints(browser) == []
    assert [url for url in requests(browser) if not url.startswith(site.parent.as_uri())] == []


def rows(browser: Any) -> list[str]:
    """Slugs of the rows that are shown, in their order."""
    return browser.execute_script(
        "return [...document.querySelectorAll('#board tbody tr:not([hidden]) .pick input')].map((box) => box.value)"
    )


def find(browser: Any, selector: str) -> Any:
    """The first element of that kind."""
    return browser.find_element("css selector", selector)


def fragment(browser: Any) -> str:
    """The state in the address."""
    return browser.execute_script("return decodeURIComponent(location.hash)")


def choose(browser: Any, selector: str, value: str) -> None:
    """As if chosen by hand."""
    find(browser, f"{selector} option[value='{value}']").click()


def saved(downloads: Path, name: str) -> str:
    """What the browser has downloaded under that name."""
    deadline = time.monotonic() + 20
    while not (downloads / name).exists() or not (downloads / name).stat().st_size:
        assert time.monotonic() < deadline, f"{name} was not downloaded"
        time.sleep(0.05)
    return (downloads / name).read_bytes().decode()


RANKED = [
    "robust",
    "robust-sap-100",
    "robust-rna-0.1",
    "net-sap-100",
    "net",
    "models.py-coin",
    "quick-sap-100",
    "old-sap-100",
]


def test_it_opens_by_rank(browser: Any, site: Path) -> None:
    """Settings as groups; who has no rank comes last in its own."""
    browser.get((site / "index.html").as_uri())

    assert sorted(rows(browser)[:2]) == RANKED[:2]
    assert sorted(rows(browser)) == sorted(RANKED)
    assert rows(browser)[5:] == RANKED[5:]
    assert find(browser, "th.rank").get_attribute("aria-sort") == "ascending"
    assert len([e for e in browser.find_elements("css selector", "tr.setting") if e.is_displayed()]) == 2


def test_sorting_by_a_column_and_back(browser: Any, site: Path) -> None:
    """Largest first, then smallest; absent ones last both times; the address says so."""
    browser.get((site / "index.html").as_uri())
    find(browser, "th.clean button").click()
    down, first = rows(browser), find(browser, "th.clean").get_attribute("aria-sort")
    find(browser, "th.clean button").click()
    up = rows(browser)
    find(browser, "th.transfer_gap button").click()

    assert (down[0], up[-1], first) == ("net", "net", "descending")
    assert fragment(browser) == "#sort=-transfer_gap"
    assert rows(browser)[-1] == "quick-sap-100"  # the one without
    assert find(browser, "th.clean").get_attribute("aria-sort") is None
    find(browser, "th.rank button").click()
    assert fragment(browser) == ""
    assert rows(browser)[5:] == RANKED[5:]


def test_search_and_filters_narrow_the_rows(browser: Any, site: Path) -> None:
    """Each filter, all together; the count is said, and nothing left is said too."""
    browser.get((site / "index.html").as_uri())
    find(browser, "#q").send_keys("sap robust")
    assert rows(browser) == ["robust-sap-100"]
    assert find(browser, "#count").text == "1 of 8 entries"
    find(browser, "#q").send_keys("zzz")
    assert find(browser, "#none").is_displayed()
    find(browser, "#reset").click()
    for selector, value, left in (
        ("#net", "robust", 3),
        ("#defence", "sap:100", 1),
        ("#verdict", "warning", 1),
        ("#tier", "quick", 0),
    ):
        choose(browser, selector, value)
        assert len(rows(browser)) == left
    choose(browser, "#tier", "")
    choose(browser, "#eps", "8/255")

    assert fragment(browser) == "#net=robust&defence=sap:100&verdict=warning&eps=8/255"
    assert rows(browser) == ["robust-sap-100"]


def test_the_address_holds_the_state(browser: Any, site: Path) -> None:
    """Opened anew, and changed by hand while it is open."""
    address = (site / "index.html").as_uri()
    browser.get(f"{address}#q=sap&tier=full&sort=clean&hide=passes,net&pick=net-sap-100")

    assert rows(browser) == ["robust-sap-100", "net-sap-100"]
    assert find(browser, "#q").get_attribute("value") == "sap"
    assert find(browser, ".pick input[value='net-sap-100']").is_selected()
    assert not find(browser, "th.passes").is_displayed()
    browser.execute_script("location.hash = '#tier=quick'")
    time.sleep(0.2)
    assert sorted(rows(browser)) == ["old-sap-100", "quick-sap-100"]
    assert find(browser, "th.passes").is_displayed()


def test_a_strange_address_does_no_harm(browser: Any, site: Path) -> None:
    """Unknown columns, values and entries."""
    browser.get(f"{(site / 'index.html').as_uri()}#sort=-__proto__&tier=%3Cb%3E&pick=%22,x&hide=,,&zzz=1")

    assert rows(browser) == []
    browser.get("about:blank")
    browser.get(f"{(site / 'compare.html').as_uri()}#entries=%3Cimg%20src=x%3E,net,__proto__")
    assert find(browser, "#few").is_displayed()


def test_columns_go_and_come_back(browser: Any, site: Path) -> None:
    """By the menu."""
    browser.get((site / "index.html").as_uri())
    find(browser, "details.menu summary").click()
    find(browser, "#columns input[value=net]").click()
    assert not find(browser, "td.net").is_displayed()
    assert fragment(browser) == "#hide=net"
    find(browser, "#columns input[value=net]").click()
    assert find(browser, "td.net").is_displayed()


def test_a_flag_explains_itself_on_focus_and_on_hover(browser: Any, site: Path) -> None:
    """What was seen here, why it matters, what to do; Escape closes it, leaving it too."""
    browser.get((site / "index.html").as_uri())
    tip = find(browser, "#tip")
    flag = find(browser, "button.flag[data-code='estimator-spread']")
    browser.execute_script("arguments[0].focus()", flag)
    said = tip.text

    assert "Seen: seen in robust-sap-100" in said
    assert "Report the estimator that leaves the least" in said
    assert flag.get_attribute("aria-describedby") == "tip"
    find(browser, "body").send_keys(ESCAPE)
    assert not tip.is_displayed()
    hover = "arguments[0].dispatchEvent(new MouseEvent(arguments[1], {bubbles: true}))"
    browser.execute_script(hover, flag, "mouseover")
    assert tip.is_displayed()
    browser.execute_script(hover, flag, "mouseout")
    assert not tip.is_displayed()


def test_the_keyboard_is_enough(browser: Any, site: Path) -> None:
    """/ searches, arrows go from entry to entry, Enter opens; headers are buttons."""
    browser.get((site / "index.html").as_uri())
    find(browser, "body").send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "q"
    assert find(browser, "#q").get_attribute("value") == ""
    first = find(browser, "#board tbody th.defence a")
    browser.execute_script("arguments[0].focus()", first)
    first.send_keys(DOWN)
    second = browser.switch_to.active_element
    assert second.get_attribute("href").endswith(f"{rows(browser)[1]}.html")
    second.send_keys("\n")
    assert "/entries/" in browser.current_url


@pytest.mark.parametrize(
    ("kind", "name"), [("csv", "leaderboard.csv"), ("json", "leaderboard.json"), ("bib", "leaderboard.bib")]
)
def test_what_is_shown_can_be_taken_along(
    running: tuple[Any, Path], browser: Any, site: Path, kind: str, name: str
) -> None:
    """All rows as in the site's own file; narrowed, those that are left, as they are sorted."""
    downloads = running[1]
    browser.get((site / "index.html").as_uri())
    browser.execute_script("document.querySelector(arguments[0]).click()", f"[data-export={kind}]")
    text, whole = saved(downloads, name), (site / name).read_text(encoding="utf-8")
    (downloads / name).unlink()
    if kind == "csv":
        assert same_table(text, whole)
    elif kind == "json":
        assert json.loads(text) == json.loads(whole)
    else:
        assert text == whole
    choose(browser, "#tier", "quick")
    find(browser, "th.worst_case button").click()
    browser.execute_script("document.querySelector(arguments[0]).click()", f"[data-export={kind}]")
    left = saved(downloads, name)

    assert left.index("old-sap-100") < left.index("quick-sap-100")
    assert "robust-rna" not in left


def same_table(one: str, other: str) -> bool:
    """Whether two CSV texts have the same cells, numbers by their value."""
    tables = [list(csv.reader(text.splitlines())) for text in (one, other)]

    def plain(cell: str) -> Any:
        try:
            return round(float(cell), 9)
        except ValueError:
            return cell

    return [[plain(c) for c in line] for line in tables[0]] == [[plain(c) for c in line] for line in tables[1]]


def test_entries_are_compared_side_by_side(browser: Any, site: Path) -> None:
    """Picked in the table; paired differences have the sign of the order, and say who is better."""
    browser.get((site / "index.html").as_uri())
    for slug in ("robust", "net"):
        find(browser, f".pick input[value='{slug}']").click()
    find(browser, "#compare").click()
    assert fragment(browser) == "#entries=robust,net"
    lines = [line.text for line in browser.find_elements("css selector", "#pairs tbody tr")]
    rows_json = {row["slug"]: row for row in json.loads((site / "leaderboard.json").read_text(encoding="utf-8"))}
    by = 100 * (rows_json["robust"]["worst_case"]["value"] - rows_json["net"]["worst_case"]["value"])

    assert len(lines) == 1
    assert f"+{by:.1f} [+" in lines[0]
    assert "robust, undefended is better" in lines[0]
    browser.execute_script("location.hash = '#entries=net,robust,robust-sap-100,old-sap-100'")
    time.sleep(0.2)
    lines = [line.text for line in browser.find_elements("css selector", "#pairs tbody tr")]
    assert len(lines) == 6
    assert f"\u2212{by:.1f} [\u2212" in lines[0]
    assert "not the same images, eps and tier" in lines[2]
    assert any("not separated: the interval contains 0" in line for line in lines)
    assert len(browser.find_elements("css selector", "#drawn svg")) == 8


def test_an_entry_s_page_draws_and_exports(running: tuple[Any, Path], browser: Any, site: Path) -> None:
    """Each pixel of the images, their worst points and differences; image by image counts, BibTeX."""
    browser.get((site / "entries" / "robust-sap-100.html").as_uri())
    examples = PerImage.read(
        site.parent / "records" / f"robust-sap-100{SUFFIX}", images=64, counts_sha256=None
    ).examples
    for number, (clean, worst) in enumerate(zip(examples.clean.int(), examples.worst.int(), strict=True)):
        difference = (128 + 127 * (worst - clean) / 8).clamp(0, 255)
        for place, expected in enumerate((clean, worst, difference)):
            shown = pixels(browser, f".examples li:nth-child({number + 1}) svg:nth-child({place + 1})")
            assert (shown - expected).abs().max() <= (1 if place == 2 else 0), (number, place)
    find(browser, "#images-csv").click()
    counts = saved(running[1], "robust-sap-100-images.csv").splitlines()
    find(browser, "#bib").click()

    assert len(examples.clean) == 8
    assert counts[0] == "image,draws,clean_right,worst_right"
    assert len(counts) == 65
    assert saved(running[1], "robust-sap-100.bib").startswith("@misc{robust-sap-100,")


def pixels(browser: Any, selector: str) -> torch.Tensor:
    """What is shown of a picture of 32 x 32 pixels, each the middle of what it has on the screen: (3, 32, 32)."""
    where = (
        "const r = document.querySelector(arguments[0]).getBoundingClientRect(); return [r.x + scrollX, r.y + scrollY]"
    )
    x, y = browser.execute_script(where, selector)
    clip = {"x": round(x), "y": round(y), "width": 96, "height": 96, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    return torch.from_numpy(np.array(image))[1::3, 1::3].permute(2, 0, 1).int()


def test_dark_and_light(browser: Any, site: Path) -> None:
    """As the system has it, until the reader says otherwise; then so on every page."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    for scheme, colour in (("dark", "rgb(20, 22, 26)"), ("light", "rgb(255, 255, 255)")):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        browser.get((site / "index.html").as_uri())
        assert browser.execute_script(ground) == colour
    find(browser, "button.theme").click()
    assert browser.execute_script(ground) == "rgb(20, 22, 26)"
    browser.get((site / "entries" / "robust.html").as_uri())
    assert browser.execute_script(ground) == "rgb(20, 22, 26)"
    browser.execute_script("localStorage.clear()")


@pytest.mark.parametrize("page", ["index.html", "entries/robust-sap-100.html", "compare.html#entries=robust,net"])
def test_a_phone_needs_no_sideways_scrolling(browser: Any, site: Path, page: str) -> None:
    """390 pixels; tables that are wider scroll by themselves."""
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(f"{site.as_uri()}/{page}")

    assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_and_picture_has_a_name(browser: Any, site: Path) -> None:
    """In the browser's own accessibility tree."""
    for page in ("index.html", "entries/robust-sap-100.html", "compare.html"):
        browser.get(f"{site.as_uri()}/{page}")
        nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        roles = {"button", "link", "checkbox", "combobox", "searchbox", "image", "img"}
        named = [
            n.get("name", {}).get("value")
            for n in nodes
            if n.get("role", {}).get("value") in roles and not n["ignored"]
        ]

        assert len(named) > 5
        assert all(named)


def test_a_page_refuses_what_is_remote(running: tuple[Any, Path], site: Path) -> None:
    """Even a script that got in could load and send nothing."""
    browser, _ = running
    browser.get((site / "index.html").as_uri())
    said = browser.execute_async_script(
        "const done = arguments[0], said = [];"
        "document.addEventListener('securitypolicyviolation', (e) => said.push(e.effectiveDirective));"
        "fetch('https://example.org/').catch(() => {});"
        "const image = new Image(); image.src = 'https://example.org/x.png'; document.body.append(image);"
        "const script = document.createElement('script'); script.textContent = 'window.broken = 1';"
        "document.body.append(script);"
        "setTimeout(() => done([...said, window.broken || 0]), 500)"
    )
    complaints(browser), requests(browser)

    assert sorted(said[:-1]) == ["connect-src", "img-src", "script-src-elem"]
    assert said[-1] == 0


def test_a_thousand_entries_are_usable_within_a_second(browser: Any, site: Path) -> None:
    """Opened, sorted and filtered: what the page's thread works for that, whatever else the machine does."""
    record, _ = site_records.synthetic("entry", tier="quick", images=8)
    entries = [
        Entry(
            f"e{i}", replace(record, entry=f"e{i}", model=replace(record.model, name=f"net{i % 40}")), site, None, None
        )
        for i in range(1000)
    ]
    rows_ = rows_of(entries, Ranking({entry.slug: 1 + i for i, entry in enumerate(entries)}, {}, {}))
    (site / "thousand.html").write_text(index_page(entries, rows_, {}), encoding="utf-8")
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    spent = []
    for _ in range(3):
        browser.get("about:blank")
        before = busy(browser)
        browser.get((site / "thousand.html").as_uri())
        opened = busy(browser)
        browser.execute_script(USE)
        spent.append((opened - before, busy(browser) - opened))

    assert len(rows(browser)) == 25
    assert min(map(sum, spent)) < 1, spent


USE = """
document.querySelector('th.clean button').click(); document.body.offsetHeight;
const q = document.querySelector('#q');
q.value = 'net7'; q.dispatchEvent(new Event('input')); document.body.offsetHeight;
"""


def busy(browser: Any) -> float:
    """Seconds that the page's thread has worked."""
    found = {m["name"]: m["value"] for m in browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    return found["TaskDuration"]


def test_paper_gets_the_wide_table_on_white(browser: Any, site: Path) -> None:
    """Whatever the paper's width and the reader's theme; what chooses rows is not printed, and nothing is cut off."""
    media = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    size = {"width": 740, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get((site / "index.html").as_uri())
    display = "return getComputedStyle(document.querySelector(arguments[0])).display"

    assert browser.execute_script("return getComputedStyle(document.documentElement).colorScheme") == "light"
    assert browser.execute_script(display, "#board tbody tr") == "table-row"
    assert browser.execute_script(display, ".controls") == "none"
    browser.get(f"{(site / 'compare.html').as_uri()}#entries=robust,net")
    assert browser.execute_script("return getComputedStyle(document.querySelector('.side')).overflowX") == "visible"
    browser.get((site / "entries" / "robust.html").as_uri())
    assert browser.execute_script(display, "figure details") == "none"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
