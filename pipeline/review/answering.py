"""What the page of ``lanit review`` is answered: one function for each thing that it asks for."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Callable
from functools import wraps
from importlib.resources import files
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lanit.errors import LanitError
from pipeline.decoding.limits import ChangedImage, ImageError
from pipeline.review import figures, mapping, revising, trying
from pipeline.review.queues import QUEUES, Phrase, left, queue_of
from pipeline.review.workplace import Workplace
from pipeline.serving.refusal import Refusal
from pipeline.showing.pages import render_page

_WHOLE_SIDE = 1280  # pixels of an image looked at alone
_MOST_AT_ONCE = 1000  # rows of a list
_FOUND = 1000  # images of a search
_BINS = 96
_TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
_KEPT = {"cache-control": "private, max-age=604800, immutable"}
_FRESH = {"cache-control": "no-cache"}

Handler = Callable[[Request], Response]


def page_handlers(place: Workplace) -> list[Route]:
    handlers = Handlers(place)
    reading: dict[str, Handler] = {
        "/": lambda request: Response(render_page("review/index.html", {}), media_type="text/html", headers=_FRESH),
        "/favicon.ico": lambda request: Response(status_code=204),
        "/assets/{name:path}": lambda request: _asset(request.path_params["name"]),
        "/thumbs/{key}/{row:int}": handlers.thumbnail,
        "/images/{key}/{row:int}": handlers.image,
        "/api/state": handlers.state,
        "/api/list": handlers.listed,
        "/api/rows": handlers.rows,
        "/api/row": handlers.row,
        "/api/changes": handlers.changes,
        "/api/estimate": handlers.estimate,
        "/api/histogram": handlers.histogram,
        "/api/threshold": handlers.threshold,
        "/api/map": handlers.map_state,
        "/api/map/points": handlers.map_points,
        "/api/map/colours": handlers.map_colours,
    }
    asked = {
        "/api/answers": handlers.answer,
        "/api/search": handlers.search,
        "/api/search/prepare": handlers.prepare_search,
        "/api/lasso": handlers.lasso,
        "/api/try": handlers.try_phrase,
        "/api/phrases": handlers.add_phrase,
        "/api/revision": handlers.revise,
        "/api/offsets": handlers.write_offsets,
        "/api/map/make": handlers.make_map,
    }
    routes = [Route(path, _told(handler)) for path, handler in reading.items()]
    return routes + [Route(path, _with_body(handler), methods=["POST"]) for path, handler in asked.items()]


def _told(handler: Handler) -> Handler:
    """What a person can mend is told as a sentence; Starlette runs the handler in a thread."""

    @wraps(handler)
    def answered(request: Request) -> Response:
        try:
            return handler(request)
        except LanitError as error:
            text = f"{error.message[:1].upper()}{error.message[1:]}. {error.hint}".strip()
            return JSONResponse({"error": text}, 409, _FRESH)
        except Refusal as refusal:
            return JSONResponse({"error": refusal.text}, refusal.status, _FRESH)
        except Exception as error:  # the page goes on, and says so; the traceback is where lanit review was typed
            traceback.print_exc()
            return JSONResponse({"error": f"This went wrong, and is a fault of lanit: {error!r}."}, 500, _FRESH)

    return answered


def _with_body(handler: Callable[[dict[str, Any]], Response]) -> Callable[[Request], Any]:
    from starlette.concurrency import run_in_threadpool

    async def answered(request: Request) -> Response:
        body = json.loads(await request.body())
        return await run_in_threadpool(_told(lambda _: handler(body)), request)

    return answered


def _asset(name: str) -> Response:
    data = (files("pipeline") / "assets" / "review" / name).read_bytes()
    return Response(data, media_type=_TYPES[name.rpartition(".")[2]], headers=_FRESH)


class Handlers:
    """Queries come as the guard let them through: as texts. Numbers are checked here."""

    def __init__(self, place: Workplace) -> None:
        self.place, self.map = place, mapping.MapMaker(place)

    # ------------------------------------------------------------------------------------------------ images

    def thumbnail(self, request: Request) -> Response:
        self.place.shown.set()
        return self._picture(request, self.place.thumbnails.get)

    def image(self, request: Request) -> Response:
        return self._picture(request, lambda row: self.place.images.thumbnail(row, _WHOLE_SIDE))

    def _picture(self, request: Request, read: Callable[[int], bytes]) -> Response:
        row = request.path_params["row"]
        if request.path_params["key"] != self.place.key or row >= len(self.place.images):
            raise Refusal(404, "There is no such image.")
        try:
            return Response(read(row), media_type="image/jpeg", headers=_KEPT)
        except ImageError as error:
            text = "changed since it was embedded" if isinstance(error, ChangedImage) else "not there any more"
            raise Refusal(410, text) from error

    # ------------------------------------------------------------------------------------------------ labels

    def state(self, request: Request) -> Response:
        """All that does not change with the image: phrases, how many have each, the revision."""
        place, labelling = self.place, self.place.labelling
        revision = labelling.revision
        domains = [
            {"name": name, "offset": offset, "answered": labelling.answers.count(n)}
            for n, (name, offset) in enumerate(zip(revision.domains, revision.prompt_set.offsets, strict=True))
        ]
        return _json({
            "store": place.store.root.resolve().name, "key": place.key, "images": place.store.ok,
            "revision": revision.number, "rule": revision.rule.describe(), "domains": domains,
            "offsets_count": revision.rule.kind == "adaptive", "since": labelling.answers.since(1 << 62)[0],
            "prompts": None if place.prompts is None else place.prompts.name,
        })  # fmt: skip

    def listed(self, request: Request) -> Response:
        name = request.query_params.get("queue", "first")
        if name not in QUEUES:
            raise Refusal(404, "There is no such list.")
        phrase = self._phrase(request)
        found = queue_of(name, phrase)
        return self._list(found.rows, phrase, worth=found.worth, groups=found.groups)

    def _list(self, rows: np.ndarray, of: Phrase | None = None, **more: object) -> Response:
        number = self.place.keep_list(rows)
        waiting = {} if of is None else {"left": left(of, rows)}
        return _json({"list": number, "count": len(rows)} | waiting | more)

    def rows(self, request: Request) -> Response:
        """Of each image: its row, its margin, whether it has the label now, and what people said."""
        rows = self.place.list_of(_whole(request, "list"))
        start, count = _whole(request, "start"), min(_whole(request, "count"), _MOST_AT_ONCE)
        chosen, phrase = rows[start : start + count], self._phrase(request)
        labels, said = phrase.labelling.labels(phrase.domain)[chosen], phrase.said[chosen]
        margins = np.round(phrase.margins[chosen].astype(float), 5)
        return _json({"rows": list(zip(chosen.tolist(), margins.tolist(), labels.tolist(), said.tolist(),
                                       strict=True))})  # fmt: skip

    def row(self, request: Request) -> Response:
        """All that is known of one image."""
        place, row = self.place, _whole(request, "row")
        if row >= len(place.images):
            raise Refusal(404, "There is no such image.")
        labelling = place.labelling
        margins, labels, by_clip = labelling.columns.row(row)
        said = labelling.answers.of_row(row)
        source, path = place.images.place(row)
        width, height, size = place.images.size(row)
        now = [bool(s) if s >= 0 else (own if s == -2 else label)
               for s, label, own in zip(said, labels, by_clip, strict=True)]  # fmt: skip
        return _json({
            "row": row, "path": path, "source": source, "width": width, "height": height, "bytes": size,
            "margins": [round(margin, 5) for margin in margins], "labels": now, "clip": by_clip, "said": said,
        })  # fmt: skip

    def answer(self, body: dict[str, Any]) -> Response:
        """Kept, and on the disk, once this returns."""
        labelling = self.place.labelling
        domain = self._domain(body["phrase"])
        if max(body["rows"]) >= self.place.store.ok:
            raise Refusal(404, "There is no such image.")
        before = labelling.answers.add(body["rows"], domain, body["label"])
        return _json({"before": before, "answered": labelling.answers.count(domain)})

    def changes(self, request: Request) -> Response:
        """What was answered since, here and elsewhere; and whether there is another revision now."""
        labelling = self.place.labelling
        number, changes = labelling.answers.since(_whole(request, "since"))
        listed = [[each.row, each.domain, each.label] for each in changes]
        return _json({"since": number, "revision": labelling.revision.number, "changes": listed})

    # ------------------------------------------------------------------------------------------------ figures

    def estimate(self, request: Request) -> Response:
        return _json(figures.report(self._phrase(request)))

    def histogram(self, request: Request) -> Response:
        """Margins of all images, and of those that people answered on."""
        phrase = self._phrase(request)
        margins, said = phrase.margins, phrase.said
        low, high = (float(np.quantile(margins, share)) for share in (0.0005, 0.9995)) if len(margins) else (0.0, 1.0)
        low, high = min(low, phrase.offset), max(high, phrase.offset)
        edges = np.linspace(low, high + 1e-6, _BINS + 1)
        bins = [np.histogram(np.clip(each, low, high), edges)[0].tolist()
                for each in (margins, margins[said == 1], margins[said == 0])]  # fmt: skip
        return _json({"low": low, "high": high, "all": bins[0], "yes": bins[1], "no": bins[2]})

    def threshold(self, request: Request) -> Response:
        phrase = self._phrase(request)
        try:
            offset = float(request.query_params.get("offset", "nan"))
        except ValueError:
            offset = float("nan")
        if not np.isfinite(offset):
            raise Refusal(400, "That is no offset.")
        return _json(figures.at_offset(phrase, offset))

    def search(self, body: dict[str, Any]) -> Response:
        if "row" in body and body["row"] >= self.place.store.ok:
            raise Refusal(404, "There is no such image.")
        rows = trying.find(self.place, body.get("text"), body.get("row"), _FOUND)
        return self._list(rows, worth="The nearest first, by the embeddings of the store.")

    def prepare_search(self, body: dict[str, Any]) -> Response:
        """What is wrong is told when something is searched."""
        with contextlib.suppress(LanitError):
            self.place.prepare_search()
        return _json({})

    def try_phrase(self, body: dict[str, Any]) -> Response:
        found, rows = trying.try_phrase(self.place, body["phrase"])
        return self._list(rows, **found)

    def add_phrase(self, body: dict[str, Any]) -> Response:
        return _json(revising.add_phrase(self.place, body["phrase"]))

    def revise(self, body: dict[str, Any]) -> Response:
        offsets = {self._domain(int(name)): value for name, value in body["offsets"].items()}
        return _json(revising.revise(self.place, offsets))

    def write_offsets(self, body: dict[str, Any]) -> Response:
        return _json(revising.write_offsets(self.place))

    # ------------------------------------------------------------------------------------------------ the map

    def map_state(self, request: Request) -> Response:
        return _json(self.map.state())

    def make_map(self, body: dict[str, Any]) -> Response:
        self.map.begin()
        return _json(self.map.state())

    def map_points(self, request: Request) -> Response:
        """float32 (n×2), each from -1 to 1."""
        return Response(self.map.points().astype("<f4").tobytes(), media_type="application/octet-stream")

    def map_colours(self, request: Request) -> Response:
        """float32 (n), from 0 to 1, or a category as a whole number."""
        by = request.query_params.get("by", "phrase")
        values = mapping.colours(self._phrase(request), by)
        return Response(values.astype("<f4").tobytes(), media_type="application/octet-stream")

    def lasso(self, body: dict[str, Any]) -> Response:
        rows = mapping.inside(self.map.points(), np.array(body["polygon"]))
        return self._list(rows, worth="Chosen on the map.")

    # ------------------------------------------------------------------------------------------------ queries

    def _phrase(self, request: Request) -> Phrase:
        domain = self._domain(_whole(request, "phrase"))
        return Phrase(self.place, self.place.labelling, domain)

    def _domain(self, number: int) -> int:
        if number >= len(self.place.labelling.revision.domains):
            raise Refusal(404, "There is no such phrase.")
        return number


def _whole(request: Request, name: str) -> int:
    """A parameter that is a whole number of at most nine digits."""
    text = request.query_params.get(name, "0")
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Refusal(400, "That is no number.")
    return int(text)


def _json(value: object) -> Response:
    return JSONResponse(value, headers=_FRESH)
