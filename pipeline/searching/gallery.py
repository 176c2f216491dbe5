"""Pages of thumbnails: what a search found, and groups of near-duplicates."""

from __future__ import annotations

from pathlib import Path

from pipeline.decoding.frames import Frame
from pipeline.decoding.images import decode_rgb
from pipeline.decoding.limits import ImageError
from pipeline.searching.duplicates import DuplicateReport, Member
from pipeline.searching.search import Hit, SearchReport
from pipeline.showing.pages import Picture, render_page
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages, thumbnail_of
from pipeline.store.thumbnails import stored_picture

MAX_GROUPS = 100
MAX_MEMBERS = 12
_SIDE = 224  # pixels of a thumbnail: shown at up to half of that on a sharp screen, and whole at least


def search_page(report: SearchReport, store: Store) -> str:
    """The images found, nearest first, as one HTML file."""
    images = StoreImages(store)
    values = {
        "r": report,
        "hits": [(hit, _picture(images, hit)) for hit in report.hits],
        "example": _example(report, store.manifest.frame) if report.kind == "image" else None,
    }
    return render_page("search.html", values | _about(store))


def duplicates_page(report: DuplicateReport, store: Store) -> str:
    """The largest groups, at most ``MAX_GROUPS``, and at most ``MAX_MEMBERS`` of each, as one HTML file."""
    images = StoreImages(store)
    groups = []
    for group in report.groups(MAX_GROUPS):
        shown = [(member, _picture(images, member)) for member in group.members[:MAX_MEMBERS]]
        groups.append({"size": len(group.members), "shown": shown})
    return render_page("duplicates.html", {"r": report, "groups": groups} | _about(store))


def _about(store: Store) -> dict[str, object]:
    return {
        "clip": store.fingerprint.describe(),
        "model": Path(store.clip_spec).name if Path(store.clip_spec).is_absolute() else store.clip_spec,
        "several": len(store.manifest.sources) > 1,
    }


def _picture(images: StoreImages, found: Hit | Member) -> Picture:
    return stored_picture(images, found.row, _SIDE, found.source, found.path)


def _example(report: SearchReport, frame: Frame | None) -> Picture:
    file = Path(report.query)
    try:
        thumbnail = thumbnail_of(decode_rgb(file, frame=frame, near=_SIDE), _SIDE)
    except ImageError:
        thumbnail = None
    return Picture(thumbnail, file.name)
