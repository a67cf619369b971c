"""Matplotlib figures as inline SVG that follows the page: no style attributes, no fonts, no clashing ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from markupsafe import Markup

from vlm_tune import plots
from vlm_tune.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["inline_svg"]

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_DROPPED_STYLES = ("font-family", "font")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def inline_svg(figure: Figure, *, prefix: str, label: str, colour: str | None = None) -> Markup:
    """Return a figure as an `<svg>` element for a page with a strict content policy.

    Inline styles become attributes, which such a policy allows and the page's style sheet can override, so
    that the drawing follows light and dark. Ids get a prefix, since a page holds several drawings.

    Args:
        figure: The figure.
        prefix: Unique in the page.
        label: What the drawing shows, for readers who cannot see it.
        colour: What takes the place of the first colour, for a drawing about one system.
    """
    root = ET.fromstring(plots.figure_to_svg(figure))
    referenced = _referenced(root)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        _style_to_attributes(element)
        for name in ("fill", "stroke") if colour else ():
            if element.get(name) == COLOURS[0]:
                element.set(name, str(colour))
        identity = element.attrib.pop("id", None)
        if identity in referenced:
            element.set("id", f"{prefix}-{identity}")
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF).replace("#", f"#{prefix}-"))
        if "clip-path" in element.attrib:
            element.set("clip-path", _REFERENCE.sub(rf"url(#{prefix}-\1)", element.attrib["clip-path"]))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("style", "metadata")]:
            parent.remove(child)
    view = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view, "class": "chart", "role": "img", "aria-label": label})
    # Serialised XML is escaped already.
    return Markup(ET.tostring(root, encoding="unicode"))


def _referenced(root: ET.Element) -> set[str]:
    found = set()
    for element in root.iter():
        if _HREF in element.attrib:
            found.add(element.attrib[_HREF].removeprefix("#"))
        found.update(_REFERENCE.findall(element.get("clip-path", "")))
    return found


def _style_to_attributes(element: ET.Element) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        if value and name.strip() not in _DROPPED_STYLES:
            element.set(name.strip(), value.strip())
