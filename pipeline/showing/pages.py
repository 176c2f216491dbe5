"""Pages: a template of ``assets/`` and its values become one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from lanit.errors import UsageError
from pipeline.files import write_bytes
from pipeline.showing.glossary import PageWords, explained

_SUFFIXES = (".html", ".htm")
_GONE = ("not there", "not there any more")


@dataclass(frozen=True)
class Picture:
    """A thumbnail on a page. image: JPEG data, none where there is none to show; name: what it shows, for those who do
    not see it; link: address of the whole image, where a browser can open it. has_changed: whether there is none
    because the image is another by now."""

    image: bytes | None
    name: str
    link: str | None = None
    has_changed: bool = False


def render_page(template: str, values: Mapping[str, object]) -> str:
    """``assets/<template>`` filled with ``values``, as HTML; equal values give equal text.

    Texts are escaped. The template extends ``base.html`` and gets its filters: ``picture`` (of :class:`Picture`),
    ``jpeg_uri``, ``data_uri``, ``whole``, ``score``, ``percent``, ``plural``. A name that ``values`` lacks is an error.
    ``term`` links a word of the glossary, which the page then explains at its end.
    """
    words = PageWords()
    return _environment().get_template(template).render(dict(values) | {"term": words.link, "page_words": words})


def write_page(path: Path, html: str) -> None:
    """Write a page, atomically."""
    check_page(path)
    write_bytes(path, html.encode())


def check_page(path: Path) -> None:
    """Raise UsageError unless ``path`` can be the name of a page: say so before any work is done for it."""
    if path.suffix.lower() not in _SUFFIXES or path.is_dir():
        raise UsageError(f"{path} is not the name of a page", "Write it like --html page.html")


def file_link(source: str, path: str) -> str | None:
    """Address of an image that is a file of its own in a local folder; none for others."""
    folder = Path(source)
    return (folder / path).as_uri() if folder.is_absolute() and folder.is_dir() else None


def data_uri(picture: np.ndarray) -> str:
    """A uint8 RGB array (H, W, 3) as the address of a PNG picture within the page."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    return png_uri(buffer.getvalue())


def png_uri(data: bytes) -> str:
    """PNG data as the address of a picture within the page."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def jpeg_uri(data: bytes) -> str:
    """JPEG data as the address of a picture within the page."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def whole(value: float) -> str:
    """A count with a narrow space between thousands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def score(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def percent(value: float) -> str:
    """A share as a whole percentage."""
    return f"{100 * value:.0f}\u202f%"


def plural(count: float, noun: str) -> str:
    """ "1 image", "2 images"; thousands apart."""
    number = whole(count) if count == int(count) else f"{count:g}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def _picture(picture: Picture) -> Markup:
    """Not lazily loaded: what lies in the page costs no request, and browsers print only what they have decoded."""
    if picture.image is None:
        short, long = ("changed", "changed since it was embedded") if picture.has_changed else _GONE
        shown = Markup('<span class="gone" role="img" aria-label="{}: {}">{}</span>').format(picture.name, long, short)
    else:
        shown = Markup('<img src="{}" alt="{}">').format(jpeg_uri(picture.image), picture.name)
    return shown if picture.link is None else Markup('<a href="{}">{}</a>').format(picture.link, shown)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(data_uri=data_uri, whole=whole, score=score, percent=percent, plural=plural)
    environment.filters.update(picture=_picture, jpeg_uri=jpeg_uri)
    environment.globals["explained"] = explained
    environment.globals["style"] = Markup(_asset("page.css"))
    return environment


def _asset(name: str) -> str:
    return (files("pipeline") / "assets" / name).read_text(encoding="utf-8")
