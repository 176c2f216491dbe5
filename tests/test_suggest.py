"""Suggested words: what the prompts leave unsaid comes first, what they say already does not come at all."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

import cli
import pipeline.suggestion.suggest
import pipeline.words.word_directions
from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.clip.models import ClipModel, load_clip
from pipeline.embedding.embed import embed
from pipeline.labelling.label import label
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.sample_world.faces import ATTRIBUTES
from pipeline.stability.views import Views
from pipeline.store.store import Store
from pipeline.suggestion.suggest import SuggestOptions, SuggestReport, suggest_prompts
from pipeline.suggestion.unexplained import Scorer, pick_words
from pipeline.words.kmeans import cluster_centres
from pipeline.words.vocabulary import Vocabulary, new_words, read_vocabulary, readable_words
from pipeline.words.word_directions import cached_directions, directions_of

FACES = 320
SAMPLE_SET = read_prompt_set("sample-faces")
PAIRS = [  # every attribute twice: hair with hair, hair with a thing, things with things
    ("blond hair", "black hair"),
    ("brown hair", "red hair"),
    ("gray hair", "bald"),
    ("bald", "bangs"),
    ("blond hair", "eyeglasses"),
    ("black hair", "smiling"),
    ("brown hair", "mustache"),
    ("red hair", "wearing hat"),
    ("gray hair", "wearing lipstick"),
    ("bangs", "eyeglasses"),
    ("smiling", "mustache"),
    ("wearing hat", "wearing lipstick"),
]


def without(*left_out: str) -> PromptSet:
    return dataclasses.replace(
        SAMPLE_SET, domains=tuple(d for d in SAMPLE_SET.domains if d not in left_out), offsets=(), weights=()
    )


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip("sample")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, clip: ClipModel) -> Path:
    """A folder with the faces, and beside it their store."""
    folder = tmp_path_factory.mktemp("world") / "faces"
    write_faces(folder, FACES, seed=11)
    embed([str(folder)], folder.parent / "store", clip)
    return folder


@pytest.fixture
def store(faces: Path) -> Store:
    """The store of the faces, without labels."""
    shutil.rmtree(faces.parent / "store" / "labels", ignore_errors=True)
    return Store.open(faces.parent / "store")


def suggest(
    store: Store, clip: ClipModel, prompts: PromptSet, rule: Rule | None = None, **options: Any
) -> SuggestReport:
    label(store, clip, prompts, rule or Rule())
    return suggest_prompts(store, clip, read_vocabulary(), options=SuggestOptions(**options))


@pytest.mark.parametrize("pair", PAIRS, ids=" + ".join)
def test_two_words_left_out_of_the_prompts_are_among_the_first_five(
    store: Store, clip: ClipModel, pair: tuple[str, str]
) -> None:
    words = [each.word for each in suggest(store, clip, without(*pair)).suggestions]
    assert set(pair) <= set(words[:5])


@pytest.mark.parametrize("left_out", [ATTRIBUTES[2:6], ATTRIBUTES[6:]], ids=" + ".join)
def test_more_words_left_out_are_all_found_before_any_other(
    store: Store, clip: ClipModel, left_out: tuple[str, ...]
) -> None:
    words = [each.word for each in suggest(store, clip, without(*left_out)).suggestions]
    assert set(words[: len(left_out)]) == set(left_out)


def test_prompts_that_say_everything_get_no_suggestion(store: Store, clip: ClipModel) -> None:
    assert suggest(store, clip, SAMPLE_SET).suggestions == ()


def test_a_word_that_no_prompt_says_is_found_where_every_image_has_a_label(store: Store, clip: ClipModel) -> None:
    report = suggest(store, clip, without("eyeglasses", "wearing hat"), Rule("top-k", 2))
    assert (report.uncovered, report.groups) == (0, ())
    assert {each.word for each in report.suggestions[:2]} == {"eyeglasses", "wearing hat"}


def test_counts_are_those_of_labelling_with_the_word(store: Store, clip: ClipModel) -> None:
    report = suggest(store, clip, without("bald", "eyeglasses", "mustache"))
    before = store.labels().active.any(axis=1)
    label(store, clip, SAMPLE_SET, Rule())
    after = store.labels()
    assert report.images == FACES
    assert report.uncovered == (~before).sum() > 0
    assert len(report.suggestions) == 3
    for each in report.suggestions:
        active = after.active[:, after.domains.index(each.word)]
        assert (each.images, each.uncovered) == (active.sum(), (active & ~before).sum())


def test_examples_are_five_images_that_show_the_word(store: Store, clip: ClipModel, faces: Path) -> None:
    with (faces / "truth.csv").open(encoding="utf-8", newline="") as file:
        truth = {row["path"]: row for row in csv.DictReader(file)}
    of_path = {path: row for row, path in enumerate(store.ok_images()["path"].to_pylist())}
    for each in suggest(store, clip, without("blond hair", "mustache")).suggestions:
        paths = [example.path for example in each.examples]
        assert len(set(paths)) == 5
        assert [of_path[path] for path in paths] == [example.row for example in each.examples]
        assert [truth[path][each.word] for path in paths] == ["1"] * 5


@pytest.mark.parametrize("word", ["mustache", "red hair"])
def test_score_and_examples_are_those_of_the_formula_where_an_image_with_l_labels_counts_one_over_one_plus_l(
    store: Store, clip: ClipModel, word: str
) -> None:
    (suggestion,) = suggest(store, clip, without(word)).suggestions
    labels = store.labels()
    label(store, clip, SAMPLE_SET, Rule())
    own = store.labels().margin[:, ATTRIBUTES.index(word)].astype(float)
    weight = 1 / (1 + labels.active.sum(axis=1))
    weight /= weight.sum()
    beyond = own - LinearRegression(positive=True).fit(labels.margin, own, weight).predict(labels.margin)
    news = np.where(own > 0, np.maximum(beyond, 0), 0)
    assert suggestion.score == pytest.approx((weight * news).sum() * weight[own <= 0].sum(), rel=0.01)
    assert [example.row for example in suggestion.examples] == np.argsort(-news)[:5].tolist()


def test_equal_images_are_shown_once(store: Store, clip: ClipModel, faces: Path, tmp_path: Path) -> None:
    best = suggest(store, clip, without("mustache")).suggestions[0].examples[0].path
    twice = tmp_path / "twice"
    shutil.copytree(faces, twice)
    shutil.copy(twice / best, twice / "a-copy.png")
    embed([str(twice)], tmp_path / "store", clip)
    report = suggest(Store.open(tmp_path / "store"), clip, without("mustache"))
    shown = {example.path for example in report.suggestions[0].examples}
    assert len(shown) == 5
    assert len(shown & {best, "a-copy.png"}) == 1


def test_groups_are_the_images_without_a_label_and_their_words_fit_them(store: Store, clip: ClipModel) -> None:
    left_out = ("red hair", "gray hair", "bald", "mustache")
    report = suggest(store, clip, without(*left_out, "bangs", "eyeglasses", "smiling"), clusters=4)
    assert sum(group.size for group in report.groups) == report.uncovered
    assert 1 < len(report.groups) <= 4
    bare = ~store.labels().active.any(axis=1)
    label(store, clip, SAMPLE_SET, Rule())
    truth = store.labels()
    for group in report.groups:
        rows = [example.row for example in group.examples]
        assert bare[rows].all()
        assert 1 <= len(rows) <= 5
        known = [word for word in group.words if word.word in truth.domains]
        assert known
        assert all(0 < word.share <= 1 for word in group.words)
    fired = truth.active[bare].mean(axis=0)
    said = {word.word for group in report.groups for word in group.words}
    assert all(fired[truth.domains.index(word)] > 0 for word in said & set(truth.domains))
    assert {"mustache", "gray hair"} <= said


def test_equal_arguments_give_equal_reports_and_a_sample_still_counts_every_image(
    store: Store, clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = suggest(store, clip, without("eyeglasses", "bald"))
    assert suggest(store, clip, without("eyeglasses", "bald")) == whole
    monkeypatch.setattr(pipeline.suggestion.suggest, "_SAMPLE", 90)
    monkeypatch.setattr(pipeline.suggestion.suggest, "_SHORTLIST", 5)  # several rounds, few survivors
    small = suggest(store, clip, without("eyeglasses", "bald"), seed=3)
    assert small.sampled < 120 < whole.sampled
    counted = {each.word: (each.images, each.uncovered) for each in whole.suggestions}
    assert {each.word: (each.images, each.uncovered) for each in small.suggestions} == counted


def test_words_that_the_model_never_saw_are_not_compared(store: Store, clip: ClipModel) -> None:
    label(store, clip, without("eyeglasses"), Rule())
    words = Vocabulary("mine", ("eyeglasses", "spectacles", "red hat", "red umbrella", "Smiling", "hats wearing"))
    report = suggest_prompts(store, clip, words)
    assert (report.words, report.compared) == (6, 2)  # eyeglasses and red hat
    assert [each.word for each in report.suggestions] == ["eyeglasses"]
    with pytest.raises(LanitError, match="'mine' has no word that this CLIP knows"):
        suggest_prompts(store, clip, Vocabulary("mine", ("spectacles", "bangs")))


def test_labels_of_other_images_and_other_models_are_refused(store: Store, clip: ClipModel, tiny_clip: Any) -> None:
    words = Vocabulary("mine", ("eyeglasses",))
    with pytest.raises(LanitError, match="has no labels"):
        suggest_prompts(store, clip, words)
    label(store, clip, without("bald"), Rule())
    with pytest.raises(LanitError, match="not of"):
        suggest_prompts(store, tiny_clip, words)
    with pytest.raises(LanitError, match="no label revision 7"):
        suggest_prompts(store, clip, words, revision=7)


def test_without_faiss_the_error_says_what_to_install(
    store: Store, clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(LanitError, match="faiss is not installed"):
        suggest(store, clip, without("bald"))


# the score


def drawn(seed: int, images: int, words: int, prompts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins of words (V×s) and of prompts (p×s), correlated, and importances (s) that sum to 1."""
    rng = np.random.default_rng(seed)
    known = rng.normal(-0.2, 1, (prompts, images)).astype(np.float32)
    mixed = rng.normal(0, 1, (words, prompts)) @ known
    margins = (mixed + rng.normal(0, 1, (words, images)) + rng.normal(0, 1, (words, 1))).astype(np.float32)
    importance = rng.uniform(0.1, 1, images)
    return margins, known, importance / importance.sum()


@pytest.mark.parametrize(("images", "words", "prompts"), [(50, 1, 1), (301, 7, 3), (97, 300, 12)])
def test_scores_against_scikit_learn(images: int, words: int, prompts: int) -> None:
    margins, known, importance = drawn(images, images, words, prompts)
    expected = []
    for own in margins.astype(float):
        fitted = LinearRegression(positive=True).fit(known.T, own, importance)
        news = np.where(own > 0, np.maximum(own - fitted.predict(known.T), 0), 0)
        expected.append((importance * news).sum() * importance[own <= 0].sum())
    np.testing.assert_allclose(Scorer(margins, known, importance).scores(), expected, atol=2e-3)


def test_a_picked_word_counts_as_a_prompt() -> None:
    margins, known, importance = drawn(3, 200, 9, 4)
    scorer = Scorer(margins, known, importance)
    scorer.add(5)
    together = Scorer(margins, np.concatenate([known, margins[5:6]]), importance)
    np.testing.assert_allclose(scorer.scores(), together.scores(), atol=1e-3)


def labelled_margins(active: np.ndarray, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Margins of about +0.1 where a word fits and −0.2 where not."""
    rng = np.random.default_rng(seed)
    return (np.where(active, 0.1, -0.2) + rng.normal(0, noise, active.shape)).astype(np.float32)


EVEN = np.full(1000, 0.001)


def scores_of(words: np.ndarray, known: np.ndarray) -> np.ndarray:
    return Scorer(words.astype(np.float32), known.astype(np.float32), EVEN).scores()


def test_what_the_prompts_say_scores_next_to_nothing_beside_what_they_do_not() -> None:
    rng = np.random.default_rng(1)
    hair, hat, glasses = (labelled_margins(rng.random(1000) < 0.4, seed=n) for n in range(3))
    synonym, both = 0.7 * hair - 0.02, hair + hat - 0.1
    found = scores_of(np.stack([glasses, synonym, both]), np.stack([hair, hat]))
    assert (found[1:] < found[0] / 20).all()


def test_a_word_that_fits_every_image_scores_next_to_nothing() -> None:
    rng = np.random.default_rng(2)
    known = labelled_margins(rng.random((2, 1000)) < 0.5)
    everywhere = 0.5 + rng.normal(0, 0.05, 1000)
    some = labelled_margins(rng.random(1000) < 0.2)
    found = scores_of(np.stack([some, everywhere]), known)
    assert found[1] < found[0] / 100


def test_the_last_of_exclusive_words_is_not_taken_as_said_by_the_absence_of_the_others() -> None:
    colours = np.eye(4, dtype=bool)[np.arange(1000) % 4].T
    margins = labelled_margins(colours)
    plain = LinearRegression().fit(margins[:3].T, margins[3])
    assert plain.score(margins[:3].T, margins[3]) > 0.95  # which is what least squares would conclude
    alone = scores_of(margins[3:], margins[:0])[0]
    assert scores_of(margins[3:], margins[:3])[0] > 0.9 * alone


def test_words_that_two_crops_disagree_on_rank_lower_and_their_kappa_is_told(
    store: Store, clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = Vocabulary("two", ("gray hair", "bald"))
    label(store, clip, without("gray hair", "bald"), Rule())
    plain = suggest_prompts(store, clip, words)
    assert [each.stability for each in plain.suggestions] == [None, None]
    best = plain.suggestions[0].word
    embeddings = store.embeddings()
    direction = directions_of(clip, without("gray hair", "bald"), [best])[0]
    turned = embeddings.copy()
    turned[::3] -= 2 * (turned[::3] @ direction)[:, None] * direction / (direction @ direction)  # the other label
    views = Views(np.stack([embeddings, turned]), "made up")
    monkeypatch.setattr(pipeline.suggestion.suggest, "read_views", lambda store: views)
    found = {each.word: each for each in suggest_prompts(store, clip, words).suggestions}
    for word, each in found.items():
        way = directions_of(clip, without("gray hair", "bald"), [word])[0]
        kappa = cohen_kappa_score(embeddings @ way > 0, turned @ way > 0)
        assert each.stability == pytest.approx(kappa, abs=1e-9)
    before = {each.word: each.score for each in plain.suggestions}
    if best in found:  # else it fell below what is worth suggesting
        assert found[best].score < 0.7 * before[best]


def test_picked_words_are_ranked_by_their_score_times_their_trust() -> None:
    margins = np.random.default_rng(0).normal(size=(6, 80)).astype(np.float32)
    even = np.full(80, 1 / 80)
    scores = Scorer(margins, margins[:0], even).scores()
    trust = np.linspace(0.1, 1, 6)
    first, *_ = pick_words(Scorer(margins, margins[:0], even), list("abcdef"), 1, trust=trust)
    assert first.word == int(np.argmax(scores * trust))
    assert first.score == pytest.approx(float((scores * trust).max()))
    assert pick_words(Scorer(margins, margins[:0], even), list("abcdef"), 3, trust=np.zeros(6)) == []


def test_of_equal_words_the_one_on_images_of_more_weight_wins() -> None:
    first = np.arange(1000) < 100
    words = np.stack([labelled_margins(first), labelled_margins(first[::-1])])
    weight = np.where(np.arange(1000) >= 500, 2.0, 1.0)
    scorer = Scorer(words, words[:0], weight / weight.sum())
    assert scorer.scores().argmax() == 1


def test_words_that_catch_the_same_images_are_one_suggestion_by_its_clearest_name() -> None:
    rng = np.random.default_rng(4)
    hat, other = (labelled_margins(rng.random(1000) < 0.3) for _ in range(2))
    phrases = ["hat", "wearing hat", "cap", "green", "tiny green"]
    words = np.stack([hat, 0.95 * hat, 0.9 * hat, other, 0.4 * other])
    picks = pick_words(Scorer(words, words[:0], EVEN), phrases, 5)
    named = [(phrases[pick.word], [phrases[also] for also in pick.also]) for pick in picks[:2]]
    assert sorted(named) == [("green", []), ("wearing hat", ["hat", "cap"])]


def test_scores_do_not_depend_on_how_many_words_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    margins, known, importance = drawn(8, 60, 11, 3)
    whole = Scorer(margins, known, importance).scores()
    monkeypatch.setattr(pipeline.suggestion.unexplained, "_BLOCK", 4)
    np.testing.assert_allclose(Scorer(margins, known, importance).scores(), whole, rtol=1e-4, atol=1e-6)


def test_groups_that_lie_apart_are_found() -> None:
    rng = np.random.default_rng(5)
    axes = np.eye(6)[[0, 2, 5]]
    member = np.repeat([0, 1, 2], [40, 25, 7])
    points = axes[member] + rng.normal(0, 0.05, (72, 6))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    centres = cluster_centres(points, 3, seed=1)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, rtol=1e-5)
    nearest = (points @ centres.T).argmax(axis=1)
    assert len({(a, b) for a, b in zip(nearest, member, strict=True)}) == 3
    np.testing.assert_array_equal(cluster_centres(points, 3, seed=1), centres)


# words


def test_the_vocabulary_that_ships_is_a_few_thousand_distinct_words_with_their_source() -> None:
    words = read_vocabulary().words
    assert 3000 <= len(words) <= 5000
    assert len({word.casefold() for word in words}) == len(words)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9'é -]*", word) for word in words)
    assert set(ATTRIBUTES) <= set(words)
    folder = Path(pipeline.suggestion.suggest.__file__).parents[1] / "assets" / "vocabulary"
    source = (folder / "words.txt").read_text(encoding="utf-8")
    assert "WordNet 3.0" in source.split("\na", 1)[0]
    body = [line for line in source.splitlines() if not line.startswith("#")]
    assert body == sorted(body)
    notice = " ".join((folder / "NOTICE.txt").read_text(encoding="utf-8").split())
    assert "WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved." in notice


def test_every_word_that_ships_can_be_a_prompt(tmp_path: Path) -> None:
    file = tmp_path / "all.txt"
    file.write_text("\n".join(read_vocabulary().words))
    assert read_prompt_set(str(file)).domains == read_vocabulary().words


def test_a_vocabulary_file(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("# mine\nfog\n\n  snow   leopard # an animal\nFog\ncafé\n", encoding="utf-8")
    assert read_vocabulary(file) == Vocabulary(str(file), ("fog", "snow leopard", "café"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "has no word"),
        (b"fog\na {} cat\n", r"line 2: 'a \{\} cat' cannot be a prompt"),
        (b"fog, mist\n", "line 1: 'fog, mist' cannot be a prompt"),
        (b"fog\n--\n", "line 2: '--' cannot be a prompt"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (None, "cannot read the vocabulary .*No such file"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused_in_a_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(LanitError, match=message) as caught:
        read_vocabulary(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "same", "others"),
    [
        ("smiling", ["smile", "Smiles", "smiled"], ["smiling face", "smith"]),
        ("wearing hat", ["hats wearing", "wearing hats"], ["hat", "wearing coat"]),
        ("berry", ["berries"], ["bear"]),
        ("run", ["running", "runs"], ["ran", "rung"]),
        ("man", ["man"], ["mane", "woman"]),
        ("glass", ["glasses"], ["grass"]),
        ("fir", ["firs"], ["fire", "red"]),
    ],
)
def test_inflections_of_a_prompt_are_not_suggested(prompt: str, same: Sequence[str], others: Sequence[str]) -> None:
    words = [*same, *others]
    assert [words[n] for n in new_words(words, ["umbrella", prompt])] == others


def test_phrases_beyond_the_context_are_left_out(tiny_clip: Any) -> None:
    words = ["red", "a b c d e f g h i j k l m n o p", "blue noise"]
    assert readable_words(words, tiny_clip, ["a photo of {}.", "an image, as far as can be seen, of {}"]) == [
        words[0],
        words[2],
    ]
    long = "a b c d e f g h i j k l m n o p q r"  # with start and end just what the context of 20 tokens holds
    assert readable_words([long, f"{long} s"], tiny_clip, ["{}"]) == [long]


def test_words_are_read_once_and_again_only_when_they_change(
    store: Store, clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, words = without("bald"), ["bald", "red hat", "smiling"]
    made = cached_directions(store, clip, prompts, words)
    np.testing.assert_array_equal(made, directions_of(clip, prompts, words))
    one_by_one = np.concatenate([directions_of(clip, prompts, [word]) for word in words])
    np.testing.assert_allclose(made, one_by_one, atol=1e-6)
    monkeypatch.setattr(pipeline.words.word_directions, "embed_together", None)
    np.testing.assert_array_equal(cached_directions(store, clip, prompts, words), made)
    monkeypatch.undo()
    folder = store.root / "cache"
    [older] = folder.glob("words-*.npy")
    content = older.read_bytes()
    for _ in range(2):  # the second finds what a process wrote that was killed before it removed the older ones
        assert len(cached_directions(store, clip, prompts, words[:2])) == 2
        assert not older.exists()
        older.write_bytes(content)
    older.unlink()
    assert len(list(folder.glob("words-*.npy"))) == 1


def test_damaged_words_are_read_again_and_files_of_the_user_stay(
    store: Store, clip: ClipModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, words = without("bald"), ["bald", "red hat"]
    folder = store.root / "cache"
    made = cached_directions(store, clip, prompts, words)
    [path] = folder.glob("words-*.npy")
    built = path.read_bytes()
    users = ["words-mine.npy", "words-0123456789abcdef.npy", ".notes.1.tmp"]
    for name in users:
        (folder / name).write_bytes(b"a user's own")
    np.save(folder / "words-00000000000000aa.npy", made)  # of an older version
    (folder / ".words-00000000000000bb.npy.4194304.tmp").touch()  # of a killed process: no such number exists
    changed = built[:-50] + bytes([built[-50] ^ 1]) + built[-49:]
    for damaged in (built[:300], changed, b""):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cached_directions(store, clip, prompts, words), made)
        assert path.read_bytes() == built
    left = {each.name for each in folder.iterdir() if not each.name.startswith("readable-")}
    assert left == {path.name, *users}

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert len(cached_directions(store, clip, prompts, words[:1])) == 1


# the command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["suggest-prompts", *map(str, arguments)])


def test_the_command_prints_the_report_as_a_table_json_and_a_page(
    store: Store, clip: ClipModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = suggest(store, clip, without("bald", "mustache"))
    monkeypatch.setenv("COLUMNS", "160")
    page = tmp_path / "page.html"
    shown = run("--store", store.root, "--html", page)
    assert shown.exit_code == 0, shown.output
    for each in report.suggestions:
        assert each.word in shown.stdout
        assert all(example.path in shown.stdout for example in each.examples)
    html = page.read_text(encoding="utf-8")
    assert html.count("<img") == sum(len(each.examples) for each in (*report.suggestions, *report.groups))
    assert all(each.word in html for each in report.suggestions)
    as_json = run("--store", store.root, "--json", "--device", "cpu")
    assert json.loads(as_json.stdout) == json.loads(json.dumps(report.to_json()))


def test_the_command_says_that_every_image_has_a_label_or_that_nothing_is_left(store: Store, clip: ClipModel) -> None:
    label(store, clip, SAMPLE_SET, Rule("top-k", 2))
    result = run("--store", store.root)
    assert result.exit_code == 0
    assert "every image has a label" in result.stderr
    assert "no word to add" in result.stdout


def test_mistakes_of_the_command_are_one_line(store: Store, clip: ClipModel, tmp_path: Path) -> None:
    label(store, clip, without("bald"), Rule())
    for arguments, code in (
        (["--vocabulary", tmp_path / "none.txt"], 1),
        (["--html", tmp_path / "page.txt"], 2),
        (["--top", 0], 2),
        (["--revision", 9], 1),
    ):
        result = run("--store", store.root, *arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
