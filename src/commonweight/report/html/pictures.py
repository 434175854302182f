"""Figures of Matplotlib as inline SVG: no style element or attribute, no script, colours that follow the page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from commonweight.base.errors import IntegrityError
from commonweight.report.files import INK

if TYPE_CHECKING:
    from pathlib import Path

TAGS = frozenset({"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect", "image", "line", "circle"})
ATTRIBUTES = frozenset({
    *("id", "d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "viewBox", "transform", "href"),
    *("clip-path", "clip-rule", "fill", "fill-opacity", "fill-rule", "opacity", "stroke", "stroke-dasharray"),
    *("stroke-dashoffset", "stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "stroke-opacity", "stroke-width"),
    *("font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline", "preserveAspectRatio"),
})
"""What a figure may consist of; the rest is dropped."""

PAPER = "#ffffff"
"""Fill of the areas behind axes; words of that colour lie on dark cells, and keep it."""

GREY = re.compile(r"#([1-5c-e][0-9a-f])\1\1")
LIGHT_GREY = re.compile(r"#([c-e][0-9a-f])\1\1")
FAINT = "0.15"
"""Opacity of what is light grey on paper: guides and bands."""

SIZE = re.compile(r"([\d.]+)px")
REFERENCE = re.compile(r"url\(#([\w-]+)\)")
PICTURE = "data:image/png;base64,"


@dataclass(frozen=True)
class Picture:
    """A figure of a run."""

    caption: str
    path: Path
    """An SVG file that :func:`~commonweight.report.files.save` wrote."""


def inline(picture: Picture, number: int) -> str:
    """Turn a figure into a piece of HTML; ``number`` keeps its names apart from those of other figures."""
    try:
        root = ElementTree.fromstring(picture.path.read_bytes())  # noqa: S314 - only known parts of it are kept
    except (OSError, ElementTree.ParseError) as error:
        raise IntegrityError(f"{picture.path} cannot be read: {error}; run the study again") from None
    kept = _clean(root, f"f{number}-")
    kept.set("role", "img")
    kept.set("aria-label", picture.caption)
    return ElementTree.tostring(kept, encoding="unicode")


def _clean(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    kept = ElementTree.Element(_local(element.tag))
    given = {_local(name): value for name, value in element.attrib.items()}
    for declaration in given.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        given[name.strip()] = value.strip()
    if "font" in given and (size := SIZE.search(given["font"])):
        given["font-size"] = size[1]
    for name, value in given.items():
        if name in ATTRIBUTES and (name != "href" or value.startswith(("#", PICTURE))):
            if LIGHT_GREY.fullmatch(value):
                kept.set(f"{name}-opacity", FAINT)
            is_paper = kept.tag == "path" and (name, value) == ("fill", PAPER)
            kept.set(name, "none" if is_paper else _value(name, value, prefix))
    kept.text, kept.tail = element.text, element.tail
    kept.extend(_clean(child, prefix) for child in element if _local(child.tag) in TAGS)
    return kept


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    if name == "href" and value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if name in {"fill", "stroke"} and (value == INK or GREY.fullmatch(value)):
        return "currentColor"
    return REFERENCE.sub(rf"url(#{prefix}\1)", value)


def _local(name: object) -> str:
    return str(name).rpartition("}")[2]
