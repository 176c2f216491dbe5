"""``lanit review`` behind its guard: who is let in, that answers are kept, and what they come to."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lanit.errors import LanitError
from lanit.rules import Rule
from pipeline.labelling.label import HowToLabel, label
from pipeline.labelling.people import read_people
from pipeline.prompts.prompt_sets import prompt_set_of, read_prompt_set
from pipeline.review import revising, trying, workplace
from pipeline.review.columns import Columns
from pipeline.review.half_embeddings import HalfEmbeddings
from pipeline.review.mapping import colours, inside
from pipeline.review.queues import QUEUES, Phrase, disagreement, queue_of
from pipeline.review.server import POLICY, ReviewOptions, build_app
from pipeline.review.workplace import Workplace
from pipeline.serving.guard import Application
from pipeline.serving.listening import listening
from pipeline.store.store import Store
from tests.asgi import Answer, ask

needs_server = pytest.mark.skipif(
    importlib.util.find_spec("starlette") is None, reason="starlette is not installed: the extra review"
)

DOMAINS = ("smiling", "eyeglasses")


@pytest.fixture
def store(tmp_path: Path, make_labelled_store: Callable[..., Store]) -> Store:
    """30 pictures: 12 smile, 7 have eyeglasses, 14 have neither."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    names = [f"{n:02d}.png" for n in range(30)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(folder / name)
    return make_labelled_store(folder, {"smiling": {*names[:12]}, "eyeglasses": {*names[9:16]}}, part_rows=8)


@dataclass
class Page:
    app: Application
    store: Store

    def get(self, path: str, query: str = "", **headers: str) -> Answer:
        return ask(self.app, path, query=query, **headers)

    def value(self, path: str, query: str = "") -> Any:
        status, _, body = self.get(path, query)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        status, _, answer = ask(self.app, path, "POST", body=json.dumps(body).encode(), **headers)
        return status, json.loads(answer)

    def said(self) -> list[tuple[str, str, bool | None]]:
        table = read_people(Store.open(self.store.root)).table
        return [(row["path"], row["phrase"], row["label"]) for row in table.to_pylist()]


@pytest.fixture
def page(store: Store) -> Page:
    return Page(build_app(ReviewOptions(store=store.root)), store)


def place_of(store: Store, clip: Any = None, prompts: Path | None = None) -> Workplace:
    return Workplace(store, clip, prompts)


# ---------------------------------------------------------------------------------------------------- who is let in


@needs_server
@pytest.mark.parametrize("path", ["/", "/api/state", "/api/answers"])
@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}],
    ids=["another host", "another origin", "another site"],
)
def test_other_hosts_and_other_sites_are_refused(page: Page, path: str, headers: dict[str, str]) -> None:
    if path == "/api/answers":
        assert page.post(path, {"rows": [0], "phrase": 0, "label": True}, **headers)[0] == 403
        assert page.said() == []
    else:
        assert page.get(path, **headers)[0] == 403


@needs_server
@pytest.mark.parametrize(
    "path",
    ["/thumbs/{key}/../../store.json", "/images/{key}/30", "/thumbs/{key}/-1", "/thumbs/000000000000/0",
     "/assets/../../../cli.py", "/assets/review.js/..", "/assets/vendor/NOTICE.txt", "/store.json", "/api",
     "/images/{key}/0/", "/images//etc/passwd", "/thumbs/{key}/0%00"],
)  # fmt: skip
def test_nothing_outside_the_store_and_the_page_is_served(page: Page, path: str) -> None:
    key = page.value("/api/state")["key"]
    assert page.get(path.format(key=key))[0] == 404


@needs_server
@pytest.mark.parametrize(
    "body",
    [{}, {"rows": [], "phrase": 0, "label": True}, {"rows": [0], "phrase": 0, "label": 1},
     {"rows": [0], "phrase": 0, "label": True, "path": "x"}, {"rows": [-1], "phrase": 0, "label": True},
     {"rows": [30], "phrase": 0, "label": True}, {"rows": [0], "phrase": 2, "label": True},
     {"rows": ["0"], "phrase": 0, "label": True}, {"rows": [True], "phrase": 0, "label": True}],
)  # fmt: skip
def test_what_the_page_does_not_send_is_refused_and_nothing_is_kept(page: Page, body: dict[str, Any]) -> None:
    status, answer = page.post("/api/answers", body)
    assert status in (400, 404)
    assert answer["error"]
    assert page.said() == []


@needs_server
def test_the_page_and_its_pictures_come_from_here_alone(page: Page) -> None:
    status, headers, body = page.get("/")
    assert status == 200
    assert headers["content-security-policy"] == POLICY
    assert b"http" not in body.replace(b"http-equiv", b"")
    for name in ("review.js", "review.css", "map.js", "vendor/regl.min.js", "vendor/regl-scatterplot.min.js",
                 "vendor/pub-sub-es.js"):  # fmt: skip
        assert page.get(f"/assets/{name}")[0] == 200, name
    key = page.value("/api/state")["key"]
    assert page.get(f"/thumbs/{key}/3")[2].startswith(b"\xff\xd8")
    assert page.get(f"/images/{key}/3")[2].startswith(b"\xff\xd8")


@needs_server
@pytest.mark.parametrize(("spec", "expected"), [("sample", True), ("owner/never-fetched", False)])
def test_a_search_is_prepared_once_images_are_shown_where_weights_need_not_be_fetched(
    store: Store, monkeypatch: pytest.MonkeyPatch, spec: str, expected: bool
) -> None:
    from starlette.applications import Starlette

    from pipeline.review.answering import page_handlers

    place, prepared = place_of(store, SimpleNamespace(spec=spec)), threading.Event()
    monkeypatch.setattr(workplace, "_SHOWING", 0.0)
    monkeypatch.setattr(place, "prepare_search", prepared.set)
    early = threading.Thread(target=place.prepare_search_early, daemon=True)
    early.start()
    early.join(0.2)
    assert early.is_alive(), "nothing is shown yet"
    assert not prepared.is_set()
    answer = ask(Starlette(routes=page_handlers(place)), f"/thumbs/{place.key}/3")
    assert answer[0] == 200
    early.join(20)
    assert not early.is_alive()
    assert prepared.is_set() == expected


@needs_server
def test_an_image_that_is_gone_is_told_from_one_that_never_was(page: Page, tmp_path: Path) -> None:
    (tmp_path / "photos" / "05.png").unlink()
    key = page.value("/api/state")["key"]
    assert page.get(f"/thumbs/{key}/5")[0] == 410
    assert page.get(f"/thumbs/{key}/30")[0] == 404


# ---------------------------------------------------------------------------------------------------- answers


@needs_server
def test_an_acknowledged_answer_is_on_the_disk_and_undo_takes_it_back(page: Page) -> None:
    assert page.post("/api/answers", {"rows": [3, 20], "phrase": 0, "label": False})[1]["before"] == [None, None]
    assert page.said() == [("03.png", "smiling", False), ("20.png", "smiling", False)]
    assert page.post("/api/answers", {"rows": [3], "phrase": 0, "label": True})[1]["before"] == [False]
    assert page.post("/api/answers", {"rows": [3], "phrase": 0, "label": None})[1]["before"] == [True]
    assert page.said() == [("20.png", "smiling", False), ("03.png", "smiling", None)]
    assert page.value("/api/row", "row=3")["labels"][0] is True, "CLIP's label again"


@needs_server
def test_an_answer_sent_twice_is_kept_once(page: Page) -> None:
    for _ in range(3):
        page.post("/api/answers", {"rows": [3], "phrase": 1, "label": True})
    people = read_people(page.store)
    assert (people.given, people.kept) == (1, 1)


@needs_server
def test_two_pages_see_each_others_answers(page: Page) -> None:
    other = Page(build_app(ReviewOptions(store=page.store.root)), page.store)
    since = other.value("/api/state")["since"]
    page.post("/api/answers", {"rows": [3], "phrase": 0, "label": False})
    other.post("/api/answers", {"rows": [4], "phrase": 1, "label": True})
    found = other.value("/api/changes", f"since={since}")["changes"]
    assert sorted(found) == [[3, 0, False], [4, 1, True]]
    assert page.value("/api/row", "row=4")["said"] == [-1, -1]
    page.value("/api/changes", "since=0")
    assert page.value("/api/row", "row=4")["said"] == [-1, 1]
    assert sorted(page.said()) == [("03.png", "smiling", False), ("04.png", "eyeglasses", True)]


# ---------------------------------------------------------------------------------------------------- queues


def test_queues_begin_with_what_they_promise(store: Store) -> None:
    place = place_of(store)
    margins = place.labelling.columns[0].margins
    place.labelling.answers.add([2, 25], 0, False)
    phrase = Phrase(place, place.labelling, 0)
    near = queue_of("near", phrase).rows
    assert near.tolist() == [row for row in np.argsort(np.abs(margins), kind="stable").tolist() if row not in (2, 25)]
    first = queue_of("first", phrase).rows.tolist()
    random = queue_of("random", phrase).rows.tolist()
    assert first[0] == random[0]
    by_turns = {*random[:4], *near[:4].tolist()}  # an image may be in both
    assert {*first[: len(by_turns)]} == by_turns
    assert sorted(first) == sorted(near.tolist())
    assert queue_of("against", phrase).rows.tolist() == [2], "25 was none before, too"
    having = [row for row in range(12) if row != 2]
    assert queue_of("surest", phrase).rows.tolist() == sorted(having, key=lambda row: -margins[row])
    assert queue_of("above", phrase).rows.tolist() == sorted(having, key=lambda row: margins[row])
    lacking = [2, *range(12, 30)]
    assert queue_of("below", phrase).rows.tolist() == sorted(lacking, key=lambda row: -margins[row])
    assert queue_of("least", phrase).rows.tolist() == sorted(lacking, key=lambda row: margins[row])
    assert queue_of("all", phrase).rows.tolist() == list(range(30))
    unlabelled = queue_of("unlabelled", phrase)
    assert sorted(unlabelled.rows.tolist()) == list(range(16, 30))
    assert unlabelled.groups[0][0] == 0
    assert not {2, 25} & {*queue_of("random", phrase).rows.tolist()}
    assert len(queue_of("unstable", phrase).rows) == 0
    assert all(queue_of(name, phrase).worth for name in QUEUES)


def test_the_least_stable_are_those_whose_crops_differ_then_those_whose_crops_would(
    make_images: Any, tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.review.queues._LEAST_SEEN", 8)
    store = embedded(make_images(24), tiny_clip, tmp_path)
    label(store, tiny_clip, prompt_set_of(DOMAINS, "test", "test"), HowToLabel(Rule()))
    middle = float(np.median(store.labels().margin[:, 0]))
    prompts = replace(prompt_set_of(DOMAINS, "test", "test"), offsets=(middle, 0.0))
    label(store, tiny_clip, prompts, HowToLabel(Rule()))
    ids = [row["image_id"] for row in store.ok_images().to_pylist()]
    place = place_of(store)
    phrase = Phrase(place, place.labelling, 0)
    rng, seen = np.random.default_rng(0), np.arange(0, 24, 2)[::-1]
    crops = phrase.margins[seen] + rng.normal(0, phrase.margins.std(), (2, 12)).astype(np.float32)
    kept = np.array([ids[row].encode() for row in seen], [("image_id", "S16")])
    monkeypatch.setattr("pipeline.review.queues.kept_views", lambda *_: kept)
    stability = np.stack([crops > middle] * 2, axis=2), np.stack([crops] * 2, axis=2)
    monkeypatch.setattr("pipeline.review.queues._view_margins", lambda _: stability)
    rows = queue_of("unstable", phrase).rows.tolist()
    differ = [n for n in range(12) if (crops[0, n] > middle) != (crops[1, n] > middle)]
    assert differ
    expected = [int(seen[n]) for n in sorted(differ, key=lambda n: -abs(crops[0, n] - crops[1, n]))]
    assert rows[: len(expected)] == expected
    others = rows[len(expected) :]
    assert others
    assert all(row % 2 for row in others), "what was seen to agree is not asked for"


def test_the_chance_that_crops_differ_is_what_drawing_crops_gives() -> None:
    rng = np.random.default_rng(0)
    margins = rng.normal(0, 0.02, 20_000)
    crops = 0.8 * margins + 0.003 + rng.normal(0, 0.01, (2, 20_000))
    chances = disagreement(margins, margins[:2000], crops[:, :2000], 0.005)
    differ = (crops[0] > 0.005) != (crops[1] > 0.005)
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.45), (0.45, 0.51)):
        here = (chances >= low) & (chances < high)
        assert abs(chances[here].mean() - differ[here].mean()) < 0.03


@needs_server
def test_a_list_is_given_in_parts_with_labels_as_they_stand(page: Page) -> None:
    page.post("/api/answers", {"rows": [29], "phrase": 0, "label": True})
    found = page.value("/api/list", "queue=all&phrase=0")
    assert (found["count"], found["left"]) == (30, 29)
    rows = page.value("/api/rows", f"list={found['list']}&start=10&count=50&phrase=0")["rows"]
    assert [row for row, *_ in rows] == list(range(10, 30))
    assert [on for _, _, on, _ in rows] == [True, True, *[False] * 17, True]
    assert [said for *_, said in rows] == [-1] * 19 + [1]
    assert page.get("/api/rows", "list=99&start=0&count=5&phrase=0")[0] == 409


@pytest.mark.parametrize("rule", [Rule("top-k", 1), Rule("argmax"), Rule("adaptive")])
def test_a_column_tells_clips_own_label_under_a_persons(make_images: Any, tiny_clip: Any, tmp_path: Path,
                                                        rule: Rule) -> None:  # fmt: skip
    store = embedded(make_images(9), tiny_clip, tmp_path)
    prompts = prompt_set_of(DOMAINS, "test", "test")
    own = store.labels(label(store, tiny_clip, prompts, rule).revision).active
    place = place_of(store)
    flipped = [0, 4]
    for row in flipped:
        place.labelling.answers.add([row], 1, not own[row, 1])
    label(store, tiny_clip, prompts, rule)
    columns = Columns(store.revision_file())
    assert columns[1].by_clip.tolist() == own[:, 1].tolist()
    assert np.flatnonzero(columns[1].labels != own[:, 1]).tolist() == flipped
    few = Columns(store.revision_file(), most_bytes=1)
    assert few.row(3)[1] == columns.row(3)[1]


def embedded(folder: Path, clip: Any, tmp_path: Path) -> Store:
    from pipeline.embedding.embed import embed

    embed([str(folder)], tmp_path / "embedded", clip)
    return Store.open(tmp_path / "embedded")


# ---------------------------------------------------------------------------------------------------- revisions


def test_one_press_makes_a_revision_with_the_offset_and_what_people_said(make_images: Any, tiny_clip: Any,
                                                                         tmp_path: Path) -> None:  # fmt: skip
    store = embedded(make_images(12), tiny_clip, tmp_path)
    label(store, tiny_clip, prompt_set_of(DOMAINS, "test", "test"), HowToLabel(Rule()))
    place = place_of(store, tiny_clip)
    margins = store.labels().margin[:, 0]
    bar = float(np.median(margins))
    top = int(margins.argmax())
    place.labelling.answers.add([top], 0, False)
    made = revising.revise(place, {0: bar})
    after = store.labels(made["revision"])
    assert after.prompt_set.offsets == (bar, 0.0)
    assert after.active[:, 0].tolist() == [m > np.float32(bar) and row != top for row, m in enumerate(margins)]
    assert after.human is not None
    assert np.argwhere(after.human).tolist() == [[top, 0]]
    assert place.labelling.revision.number == made["revision"]
    assert revising.revise(place, {})["created"] is False


@pytest.mark.parametrize("text", ["smiling\neyeglasses", '{"noun": "face", "domains": ["smiling", "eyeglasses"]}'])
def test_a_phrase_that_is_tried_goes_to_the_prompt_file_and_into_the_next_revision(
    make_images: Any, tiny_clip: Any, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(text)
    store = embedded(make_images(12), tiny_clip, tmp_path)
    label(store, tiny_clip, read_prompt_set(str(file)), Rule())
    place = place_of(store, tiny_clip, file)
    found, rows = trying.try_phrase(place, "  a red  scarf ")
    revising.add_phrase(place, "a red scarf")
    assert read_prompt_set(str(file)).domains == ("smiling", "eyeglasses", "a red scarf")
    made = revising.revise(place, {})
    again = store.labels(made["revision"])
    assert again.domains == (*DOMAINS, "a red scarf")
    assert found["caught"] == again.active[:, 2].sum()
    assert sorted(rows[: found["caught"]].tolist()) == np.flatnonzero(again.active[:, 2]).tolist()
    with pytest.raises(LanitError, match="among the phrases already"):
        revising.add_phrase(place, "A red scarf")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("noun: face  # people\r\nSmiling | weight=2  # as in toothpaste\r\n  eyeglasses | offset=0.5\r\n# smiling\r\n",
      "noun: face  # people\r\nSmiling | offset=0.0123 weight=2  # as in toothpaste\r\n  eyeglasses\r\n# smiling\r\n"),
     ('{"noun": "face", "domains": [{"phrase": "Smiling", "weight": 2}, {"phrase": "eyeglasses", "offset": 0.5}]}',
      '{\n  "noun": "face",\n  "domains": [\n    {\n      "phrase": "Smiling",\n      "weight": 2,\n'
      '      "offset": 0.0123\n    },\n    "eyeglasses"\n  ]\n}\n')],
    ids=["text", "json"],
)  # fmt: skip
def test_one_press_writes_the_offsets_to_the_prompt_file_and_leaves_the_rest_as_it_was(
    make_images: Any, tiny_clip: Any, tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(text, newline="")
    store = embedded(make_images(12), tiny_clip, tmp_path)
    label(store, tiny_clip, read_prompt_set(str(file)), Rule())
    place = place_of(store, tiny_clip, file)
    assert revising.write_offsets(place) == {"file": "prompts.txt", "written": 0}
    assert file.read_bytes() == text.encode()
    revising.revise(place, {0: 0.0123, 1: 0.0})
    assert revising.write_offsets(place) == {"file": "prompts.txt", "written": 2}
    assert file.read_bytes() == expected.encode()
    assert label(store, tiny_clip, read_prompt_set(str(file)), HowToLabel(Rule())).created is False


def test_a_phrase_cannot_be_added_where_no_file_was_named(store: Store) -> None:
    with pytest.raises(LanitError, match="without a prompt file"):
        revising.add_phrase(place_of(store), "a scarf")


def test_a_phrase_that_competes_says_from_whom_it_takes(make_images: Any, tiny_clip: Any, tmp_path: Path) -> None:
    store = embedded(make_images(12), tiny_clip, tmp_path)
    label(store, tiny_clip, prompt_set_of(DOMAINS, "test", "test"), Rule("argmax"))
    before = store.labels().active
    found, _ = trying.try_phrase(place_of(store, tiny_clip), "a scarf")
    label(store, tiny_clip, prompt_set_of((*DOMAINS, "a scarf"), "test", "test"), Rule("argmax"))
    after = store.labels().active
    lost = (before & ~after[:, :2]).sum(axis=0)
    assert dict(found["taken"]) == {name: int(n) for name, n in zip(DOMAINS, lost, strict=True) if n}
    assert found["caught"] == after[:, 2].sum() == sum(count for _, count in found["taken"])


def test_an_image_finds_itself_and_its_copies_first(store: Store) -> None:
    assert trying.find(place_of(store), None, 7, 5)[0] == 7


def test_half_precision_finds_what_a_comparison_with_every_image_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.review.half_embeddings._BLOCK_ROWS", 7)
    every, query = store.embeddings(), store.embeddings()[3]
    expected = every.astype(np.float16).astype(np.float32) @ query
    order = np.lexsort((np.arange(len(every)), -expected))
    file, whole = store.root / "cache" / f"half-{'0' * 12}.bin", b""
    for path, prepared in product((None, "damaged", "cut short"), (False, True)):
        halves = HalfEmbeddings(store, "0" * 12)
        if path:
            whole = whole or file.read_bytes()
            file.write_bytes(whole[:-1] if path == "cut short" else whole[:5] + bytes([whole[5] ^ 255]) + whole[6:])
        if prepared:
            halves.prepare()
        cosines, rows = halves.nearest(query, 20)
        assert np.allclose(cosines, expected[order[:20]], atol=1e-6)
        assert set(rows.tolist()) == set(order[:20].tolist())
        assert rows[0] == 3
        halves.close()


@needs_server
def test_the_body_of_an_answer_does_not_wait_for_the_receipt_of_its_head() -> None:
    with (
        listening("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---------------------------------------------------------------------------------------------------- the map


def test_a_lasso_takes_what_lies_within_by_the_angle_around_each_point() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (500, 2))
    star = np.array([[np.cos(a) * r, np.sin(a) * r] for a, r in zip(np.linspace(0, 2 * np.pi, 14, endpoint=False),
                                                                    [0.9, 0.3] * 7, strict=True)])  # fmt: skip
    turned = []
    for point in points:
        away = star - point
        angles = np.arctan2(away[:, 1], away[:, 0])
        steps = (np.diff(np.append(angles, angles[0])) + np.pi) % (2 * np.pi) - np.pi
        turned.append(abs(steps.sum()) > np.pi)
    assert inside(points, star).tolist() == np.flatnonzero(turned).tolist()


def test_colours_of_the_map_are_what_they_are_called(store: Store) -> None:
    place = place_of(store)
    place.labelling.answers.add([1], 0, False)
    place.labelling.answers.add([20], 0, True)
    phrase = Phrase(place, place.labelling, 0)
    assert np.flatnonzero(colours(phrase, "phrase")).tolist() == [0, *range(2, 12), 20]
    people = colours(phrase, "people")
    assert (people[1], people[20], people.sum()) == (2, 1, 3)
    margin = colours(phrase, "margin")
    assert ((margin > 0.5) == (phrase.margins > 0)).all()
    assert set(colours(phrase, "source").tolist()) == {0}
