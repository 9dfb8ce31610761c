"""A plot as SVG within a page: small, without ids or styles that the page would not allow."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from sap_art.site.plots import Plot, figure_of, style

SPACE = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
NUMERIC = {"d", "x", "y", "width", "height", "transform", "viewBox"}
PIXELS = 1.36
"""A point of the drawing on the page, so that its text is as large as a caption's."""
DROPPED = {"font-family", "stroke-miterlimit"}


def inline(plot: Plot, *, salt: str) -> str:
    """The ``<svg>`` element, its colours attributes, which the style sheet of a page overrides.

    ``salt`` tells the ids of several plots in one page apart.

    Raises:
        ImportError: without matplotlib.
    """
    buffer = io.BytesIO()
    with style(f"{salt}/{plot.name}"):
        figure_of(plot).savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in list(root):
        if element.tag == f"{SPACE}metadata" or element.find(f"{SPACE}style") is not None:
            root.remove(element)
    used = _references(root)
    for element in root.iter():
        _slim(element, used)
    width = round(PIXELS * float(root.get("width", "0").removesuffix("pt")))
    keep = {"viewBox": root.get("viewBox", ""), "width": str(width)}
    root.attrib.clear()
    root.attrib.update({**keep, "aria-hidden": "true", "focusable": "false"})
    root.attrib.update({"stroke-linejoin": "round", "stroke-linecap": "butt"})
    _collapse(root)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return re.sub(r">\s+<", "><", text.replace("ns0:", "").replace(":ns0", ""))


def _references(root: ElementTree.Element) -> set[str]:
    texts = [value for element in root.iter() for value in element.attrib.values()]
    return {name for text in texts for name in re.findall(r"url\(#([^)]+)\)", text)} | {
        element.attrib[HREF].removeprefix("#") for element in root.iter() if HREF in element.attrib
    }


def _slim(element: ElementTree.Element, used: set[str]) -> None:
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    for rule in filter(None, element.attrib.pop("style", "").split(";")):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name not in DROPPED:
            element.set(name, _rounded(value))
    for name in NUMERIC & element.attrib.keys():
        element.set(name, re.sub(r"\s+", " ", _rounded(element.attrib[name])).strip())
    if HREF in element.attrib:
        element.set("href", element.attrib.pop(HREF))


def _rounded(text: str) -> str:
    """All numbers of a text with one decimal at most: a tenth of a point is not seen."""
    return NUMBER.sub(lambda found: f"{round(float(found[0]), 1) + 0.0:g}", text)


def _collapse(element: ElementTree.Element) -> None:
    """Groups that say nothing give way to what they hold."""
    for child in list(element):
        _collapse(child)
        if child.tag == f"{SPACE}g" and not child.attrib:
            at = list(element).index(child)
            element.remove(child)
            for offset, inner in enumerate(list(child)):
                element.insert(at + offset, inner)
