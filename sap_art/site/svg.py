"""A plot as SVG within a page: small, without ids or styles that the page would not allow."""

from __future__ import annotations

import io
import re
from itertools import groupby
from xml.etree import ElementTree

from sap_art.site.paths import bounds, shortest
from sap_art.site.plots import Plot, figure_of, style

Element = ElementTree.Element
SPACE = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
NUMERIC = {"d", "x", "y", "width", "height", "transform", "viewBox"}
PIXELS = 1.36
"""A point of the drawing on the page, so that its text is as large as a caption's."""
DROPPED = {"font-family", "stroke-miterlimit"}
DEFAULT = {"text-anchor": "start", "stroke-dashoffset": "0"}
INHERITED = {"stroke-linejoin": "round", "stroke-linecap": "butt", "font-size": "8.5px"}
"""Said once for all; what is drawn otherwise says so itself."""
OWN = {"d", "x", "y", "href", "transform", "id"}
"""Attributes that a group cannot say for what is in it; all others are inherited, or mean the same of the group."""
AXIS = "matplotlib.axis_"


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
    for axis in [e for e in root.iter() if e.get("id", "").startswith(AXIS)]:
        axis[:] = sorted(_leaves(axis), key=lambda e: e.tag == f"{SPACE}text")  # labels lie outside the grid
    used = _references(root)
    for element in root.iter():
        _slim(element, used)
    width = round(PIXELS * float(root.get("width", "0").removesuffix("pt")))
    keep = {"viewBox": root.get("viewBox", ""), "width": str(width)}
    root.attrib.clear()
    root.attrib.update({**keep, "aria-hidden": "true", "focusable": "false"})
    root.attrib.update(INHERITED)
    for element in root.iter():
        for name in INHERITED if element is not root else ():
            if element.get(name) == INHERITED[name]:
                del element.attrib[name]
    _unclip(root)
    _collapse(root)
    _gather(root)
    text = ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)
    return re.sub(r">\s+<", "><", text.replace("ns0:", "").replace(":ns0", "")).replace(" />", "/>")


def _references(root: Element) -> set[str]:
    texts = [value for element in root.iter() for value in element.attrib.values()]
    return {name for text in texts for name in re.findall(r"url\(#([^)]+)\)", text)} | {
        element.attrib[name].removeprefix("#")
        for element in root.iter()
        for name in (HREF, "href")
        if name in element.attrib
    }


def _leaves(element: Element) -> list[Element]:
    """What is drawn in it, and definitions, without the groups around them; groups that say anything stay."""
    return [
        leaf
        for child in element
        for leaf in (_leaves(child) if child.tag == f"{SPACE}g" and not child.attrib.keys() - {"id"} else [child])
    ]


def _slim(element: Element, used: set[str]) -> None:
    if element.get("id") not in used:
        element.attrib.pop("id", None)
    for rule in filter(None, element.attrib.pop("style", "").split(";")):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name not in DROPPED and DEFAULT.get(name) != value:
            element.set(name, _rounded(value))
    for name in NUMERIC & element.attrib.keys():
        element.set(name, re.sub(r"\s+", " ", _rounded(element.attrib[name])).strip())
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if HREF in element.attrib:
        element.set("href", element.attrib.pop(HREF))


def _rounded(text: str) -> str:
    """All numbers of a text with one decimal at most: a tenth of a point is not seen."""
    return NUMBER.sub(lambda found: f"{round(float(found[0]), 1) + 0.0:g}", text)


def _unclip(root: Element) -> None:
    """A path that lies in its clip's rectangle needs no clip; a clip that nothing needs goes."""
    clips = {clip.get("id", ""): clip[0] for clip in root.iter(f"{SPACE}clipPath")}
    boxes = {
        f"url(#{name})": [float(rect.get(key, "0")) for key in ("x", "y", "width", "height")]
        for name, rect in clips.items()
    }
    for path in root.iter(f"{SPACE}path"):
        if (box := boxes.get(path.get("clip-path", ""))) is not None:
            (left, top, right, bottom), (x, y, width, height) = bounds(path.get("d", "")), box
            if left >= x - 0.1 and top >= y - 0.1 and right <= x + width + 0.1 and bottom <= y + height + 0.1:
                del path.attrib["clip-path"]
    needed = _references(root)
    for parent in list(root.iter(f"{SPACE}defs")):
        parent[:] = [child for child in parent if child.get("id") in needed]


def _collapse(element: Element) -> None:
    """Groups that say nothing give way to what they hold; paths that nobody sees go, the others are written shorter."""
    for child in list(element):
        _collapse(child)
        if child.tag == f"{SPACE}defs" and not len(child):
            element.remove(child)
        elif child.tag == f"{SPACE}g" and not child.attrib:
            at = list(element).index(child)
            element.remove(child)
            for offset, inner in enumerate(list(child)):
                element.insert(at + offset, inner)
        elif child.tag == f"{SPACE}path":
            if child.get("fill") == "none" and "stroke" not in child.attrib:
                element.remove(child)
            child.set("d", shortest(child.get("d", "")))


def _gather(root: Element) -> None:
    """Neighbours that look alike say so once: lines become one path, and others a group."""
    for parent in [root, *root.iter(f"{SPACE}g")]:
        gathered: list[Element] = []
        for look, alike in groupby(list(parent), key=_look):
            members = list(alike)
            if len(members) == 1 or not look[1]:
                gathered += members
            elif look[0] == f"{SPACE}path" and dict(look[1]).get("fill") == "none":
                members[0].set("d", "".join(member.get("d", "") for member in members))
                gathered.append(members[0])
            else:
                gathered.append(_group(members, dict(look[1])))
        parent[:] = gathered


def _look(element: Element) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Its tag and what a group could say for it."""
    if element.tag not in {f"{SPACE}{tag}" for tag in ("path", "text", "use")}:
        return element.tag, ()
    return element.tag, tuple(sorted((k, v) for k, v in element.items() if k not in OWN))


def _group(members: list[Element], look: dict[str, str]) -> Element:
    group = ElementTree.Element(f"{SPACE}g", look)
    for member in members:
        for name in look:
            del member.attrib[name]
    group.extend(members)
    return group
