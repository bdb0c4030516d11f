"""Drawings as a page has them: SVG with a name and a description, without what is not seen. What is drawn is decided in
`charts`.
"""

import re
from xml.etree import ElementTree

from data_platform.dashboards.options import ChartBlock

SVG = "http://www.w3.org/2000/svg"

UNUSED = ("role", "class", "pointer-events", "version", "clip-path")
"""Attributes of a drawing that say nothing here. Nothing needs to be clipped: scales hold all that is drawn; and the
ids of clippings are not unique in a page."""

INHERITED = ("fill", "stroke", "stroke-width", "font-size", "text-anchor")
"""Attributes that are said once for a group, if all in it have the same."""

DEEP = re.compile(r"-?\d+\.\d{3,}(?:e-?\d+)?")


def tidied(svg: str, name: str, block: ChartBlock, classes: str) -> str:
    """The drawing as an image that has a name and a description, without what is not seen, and needless digits."""
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(svg)  # noqa: S314 - it was just drawn here
    for parent in root.iter():
        for child in list(parent):
            unseen = child.get("class") in ("background", "foreground") and "fill" not in child.attrib
            if unseen or child.tag == f"{{{SVG}}}defs":
                parent.remove(child)
    for one in root.iter():
        for attribute in list(one.attrib):
            if attribute in UNUSED or attribute.startswith("aria-"):
                del one.attrib[attribute]
            elif attribute == "font-family":
                del one.attrib[attribute]  # the page's own
            elif attribute in ("d", "transform", "viewBox", "width", "height", "x2", "y2"):
                one.set(attribute, DEEP.sub(lambda found: f"{float(found.group()):.2f}", one.attrib[attribute]))
    for one in root.iter(f"{{{SVG}}}g"):
        for attribute in INHERITED:
            values = {child.get(attribute) for child in one}
            if len(one) > 1 and len(values) == 1 and (value := values.pop()) is not None:
                one.set(attribute, value)
                for child in one:
                    del child.attrib[attribute]
    root.attrib |= {"class": classes, "role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for place, (tag, text) in enumerate((("title", block.title), ("desc", block.alt))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{name}-{tag}"})
        element.text = " ".join(text.split())
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")
