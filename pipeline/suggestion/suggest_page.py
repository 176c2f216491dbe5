"""The page of ``lanit suggest-prompts --html``: words worth adding, each with images that show it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.showing.pages import Picture, render_page
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages
from pipeline.store.thumbnails import stored_picture
from pipeline.suggestion.suggest import Example, SuggestReport

_SIDE = 224  # pixels of a thumbnail: shown at up to half of that on a sharp screen, and whole at least


def suggestions_page(report: SuggestReport, store: Store) -> str:
    """Suggestions and groups with their images, as one HTML file."""
    images = StoreImages(store)

    def pictures(examples: Sequence[Example]) -> list[Picture]:
        return [stored_picture(images, each.row, _SIDE, each.source, each.path) for each in examples]

    values = {
        "r": report,
        "suggestions": [(each, pictures(each.examples)) for each in report.suggestions],
        "groups": [(each, pictures(each.examples)) for each in report.groups],
        "store": str(store.root),
        "clip": store.fingerprint.describe(),
    }
    return render_page("suggestions.html", values)
