"""The commands that work on words: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from lanit.rules import Rule
from pipeline.embedding.embed import embed
from pipeline.store.store import Store


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


@pytest.fixture
def world(make_images: Callable[..., Path], tiny_clip: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of twelve images in folders a and b, prompts, and labels by a person of some of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    embed([make_images(12)], tmp_path / "manifests", tiny_clip)
    (tmp_path / "prompts.txt").write_text("red\na large green | offset=0.001\nblue noise\n", encoding="utf-8")
    (tmp_path / "better.txt").write_text("Red\na small green\nblue noise | offset=0.5\n", encoding="utf-8")
    (tmp_path / "labels.csv").write_text(
        "path,red,blue_noise\nb/000.png,1,\na/001.png,0,1\nx.png,1,1\n", encoding="utf-8"
    )
    (tmp_path / "truth.csv").write_text(
        "path,red\n" + "".join(f"{'a' if n % 2 else 'b'}/{n:03d}.png,{n % 2}\n" for n in range(12)), encoding="utf-8"
    )
    assert run("label", "--prompts", "prompts.txt").exit_code == 0
    return tmp_path


def store() -> Store:
    return Store.open(Path("manifests"))


@pytest.mark.usefixtures("world")
def test_a_dry_run_shows_flips_and_writes_nothing() -> None:
    shown = run("label", "--prompts", "better.txt", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "Labels, not written" in shown.stdout
    assert "Flips from revision 1 to these labels, not written, over 12 images" in shown.stdout
    assert "new domains       a small green" in shown.stdout
    assert "domains gone      a large green" in shown.stdout
    assert store().revisions() == [1]
    report = json.loads(run("label", "--prompts", "better.txt", "--dry-run", "--json").stdout)
    assert (report["revision"], report["created"], report["dry_run"]) == (0, False, True)
    assert [flips["domain"] for flips in report["comparison"]["domains"]] == ["Red", "blue noise"]


@pytest.mark.usefixtures("world")
def test_labels_by_people_are_merged_shown_and_kept() -> None:
    merged = run("label", "--prompts", "prompts.txt", "--labels", "labels.csv")
    assert merged.exit_code == 0, merged.output
    assert "3 labels are people's" in merged.stdout
    assert "1 rows of the labels given name no image" in merged.stderr
    revision = store().labels()
    rows = {path: row for row, path in enumerate(revision.paths)}
    assert revision.active[rows["b/000.png"], 0]
    assert revision.active[rows["a/001.png"]].tolist()[::2] == [False, True]
    assert revision.human is not None
    assert revision.human.sum() == 3
    again = run("label", "--prompts", "prompts.txt", "--rule", "argmax")
    assert "3 labels are people's" in again.stdout
    assert "2 labels are kept for images that the store does not hold" in again.stdout


def people(arguments: str) -> tuple[Any, dict[str, Any]]:
    """The revision that ``lanit label`` made, or the newest, and what the report says of people."""
    report = json.loads(run(*arguments.split(), "--json").stdout)
    return store().labels(report["revision"] or None), report["people"]


@pytest.mark.usefixtures("world")
def test_labels_by_people_hold_under_other_rules_prompts_and_sources() -> None:
    run("label", "--prompts", "prompts.txt", "--labels", "labels.csv")
    rows = {path: row for row, path in enumerate(store().labels().paths)}
    on, off = rows["b/000.png"], rows["a/001.png"]
    for arguments in ("--rule top-3", "--rule fixed=1", "--rule given"):
        revision, counts = people(f"label --prompts prompts.txt {arguments}")
        assert revision.active[on, 0]
        assert revision.active[off].tolist()[::2] == [False, True]
        assert (counts["kept"], counts["applied"], counts["waiting"]) == (5, 3, 2)
    revision, counts = people("label --prompts better.txt")  # "Red", which is the same phrase, and blue noise
    assert [bool(revision.active[on, 0]), *revision.active[off].tolist()[::2]] == [True, False, True]
    Path("other.csv").write_text("path,red\n" + "".join(f"{path},0\n" for path in rows), encoding="utf-8")
    revision, counts = people("label --from-table other.csv")
    assert [path for row, path in enumerate(revision.paths) if revision.active[row, 0]] == ["b/000.png"]
    assert counts["other_phrases"] == 1
    plain, counts = people("label --prompts prompts.txt --without-people")
    assert not plain.has_human
    assert counts["kept"] == 0
    report = json.loads(run("inspect-labels", "--json").stdout)
    assert report["people"]["not_in_revision"] == 3
    assert "3 labels are kept and not in this revision" in run("inspect-labels").stdout


@pytest.mark.usefixtures("world")
def test_the_newest_label_by_people_counts_and_can_be_taken_back() -> None:
    run("label", "--prompts", "prompts.txt", "--labels", "labels.csv")
    row = store().labels().paths.tolist().index("b/000.png")
    Path("newer.csv").write_text("path,red,blue noise\nb/000.png,0,?\na/001.png,,?\n", encoding="utf-8")
    revision, counts = people("label --prompts prompts.txt --labels newer.csv")
    assert not revision.active[row, 0]
    assert revision.human.sum() == counts["applied"] == 2, "an empty cell says nothing, ? takes back"
    _, counts = people("label --prompts prompts.txt --labels labels.csv --dry-run")
    assert (counts["applied"], store().revisions()) == (3, [1, 2, 3]), "a dry run keeps nothing"
    before = {path: path.read_bytes() for path in Path("manifests/labels").iterdir()}
    again = json.loads(run("label", "--prompts", "prompts.txt", "--labels", "newer.csv", "--json").stdout)
    assert (again["created"], again["people"]["applied"]) == (False, 2)
    assert {path: path.read_bytes() for path in Path("manifests/labels").iterdir()} == before
    assert json.loads(run("label", "--forget-people", "--dry-run", "--json").stdout)["forgotten"] == 4
    assert "4 labels by people forgotten" in run("label", "--forget-people").stdout
    revision, counts = people("label --prompts prompts.txt")
    assert (revision.has_human, counts["kept"]) == (False, 0), "older revisions do not bring them back"


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("arguments", ["--prompts other.txt", "--from-folders", "--clusters 2 --words other.txt"])
def test_a_dry_run_without_a_phrase_in_common_reports_all_the_same(arguments: str) -> None:
    Path("other.txt").write_text("violet\nyellow\nwhite\n", encoding="utf-8")
    shown = run("label", *arguments.split(), "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "they have no phrase in common" in shown.stdout
    assert "domains gone      red, a large green, blue noise" in shown.stdout
    assert store().revisions() == [1]


@pytest.mark.usefixtures("world")
def test_folders_or_a_table_alone_give_labels() -> None:
    assert run("label", "--from-folders").exit_code == 0
    revision = store().labels()
    assert revision.domains == ("a", "b")
    assert [path.split("/")[0] for path in revision.paths] == [
        "ab"[row.tolist().index(True)] for row in revision.active
    ]
    assert run("label", "--from-table", "labels.csv", "--noun", "picture").exit_code == 0
    revision = store().labels()
    assert (revision.domains, revision.active.sum()) == (("red", "blue noise"), 2)
    assert revision.rule == Rule("given")


@pytest.mark.usefixtures("world")
def test_rules_and_revisions_stand_side_by_side() -> None:
    rules = run("inspect-labels", "--rules", "adaptive,top-1,fixed=0.1", "--truth", "truth.csv")
    assert rules.exit_code == 0, rules.output
    assert "Rules side by side, share of 12 images" in rules.stdout
    assert "macro F1" in rules.stdout
    run("label", "--prompts", "better.txt")
    compared = run("inspect-labels", "--compare", 1, 2, "--csv", "flips.csv")
    assert compared.exit_code == 0, compared.output
    assert "Flips from revision 1 to revision 2 over 12 images" in compared.stdout
    flips = Path("flips.csv").read_text(encoding="utf-8").splitlines()
    report = json.loads(run("inspect-labels", "--compare", 1, 2, "--rules", "argmax", "--json").stdout)
    before, after = store().labels(1), store().labels(2)
    (red, blue) = report["comparison"]["domains"]
    for each, old, new in ((red, 0, 0), (blue, 2, 2)):
        assert each["on"] == (after.active[:, new] & ~before.active[:, old]).sum()
        assert each["off"] == (before.active[:, old] & ~after.active[:, new]).sum()
        assert len(each["turned_off"]) == min(each["off"], 12)
    assert len(flips) == 1 + sum(each["on"] + each["off"] for each in (red, blue))
    assert report["revision"] == 2
    assert report["rules"][0]["labels_per_image"] == 1
    for shown in (rules.stdout, compared.stdout):
        assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.usefixtures("world")
def test_bounds_exit_with_one_and_one_line() -> None:
    assert run("inspect-labels", "--fail-under", "coverage=0").exit_code == 0
    failed = run("inspect-labels", "--fail-under", "smallest=1000", "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["images"] == 12, "the report is there all the same"
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error:")]
    assert "smallest is " in line
    assert ", below 1000" in line
    assert run("inspect-labels", "--truth", "truth.csv", "--fail-under", "f1=0,coverage=0").exit_code == 0
    assert run("inspect-labels", "--fail-under", "f1=0.5").exit_code == 2
    assert run("inspect-labels", "--fail-under", "beauty=0.5").exit_code == 2


@pytest.mark.usefixtures("world")
def test_images_are_opened_only_where_asked_for() -> None:
    flipped = run("inspect-labels", "--augment", 5, "--duplicates")
    assert flipped.exit_code == 0, flipped.output
    assert "changed in 5 images mirrored and cropped" in flipped.stdout
    assert "near-duplicates" in flipped.stdout
    plain = run("inspect-labels", "--truth", "folders", "--fail-under", "coverage=0")
    assert plain.exit_code == 1
    assert "no folder of the images is named after any of: red" in plain.stderr
    assert "--augment 500" in run("inspect-labels").stdout


@pytest.mark.usefixtures("world")
def test_contradictions_exit_with_two() -> None:
    for arguments in (
        ["label"],
        ["label", "--prompts", "prompts.txt", "--from-folders"],
        ["label", "--from-folders", "--labels", "labels.csv"],
        ["inspect-labels", "--rules", "best"],
        ["inspect-labels", "--compare", 1, 1, "--revision", 1],
        ["inspect-labels", "--csv", "flips.csv"],
        ["inspect-labels", "--augment", -1],
    ):
        result = run(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.usefixtures("world")
def test_phrases_are_typed_or_read_from_standard_input() -> None:
    assert run("label", "red", "large green | offset=0.5", "--noun", "square").exit_code == 0
    typed = store().revision_file().prompt_set
    assert (typed.domains, typed.offsets) == (("red", "large green"), (0.0, 0.5))
    assert typed.templates[0] == "a square photo with {}."
    piped = CliRunner().invoke(cli.app, ["label", "-"], input="template: a wall of {}.\nred\nGrün\n".encode())
    assert piped.exit_code == 0, piped.output
    read = store().revision_file().prompt_set
    assert (read.domains, read.templates, read.name) == (("red", "Grün"), ("a wall of {}.",), "standard input")


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["red, blue"], "phrase 1: 'red, blue' has a comma or semicolon. Give each phrase on its own"),
        (["red", "prompts.txt"], "'prompts.txt' names a set of prompts. Type: lanit label --prompts prompts.txt"),
        (["celeba-hq-10"], "Type: lanit label --prompts celeba-hq-10"),
        (["red", "--prompts", "prompts.txt"], "give phrases, or one of --prompts"),
        (["red", "Red"], "'Red' repeats"),
    ],
)
def test_what_was_typed_wrongly_is_said_in_one_line(arguments: list[str], message: str) -> None:
    done = run("label", *arguments)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert store().revisions() == [1]


@pytest.mark.usefixtures("world")
def test_offsets_are_fitted_to_labels_by_people_given_now_or_before() -> None:
    red = store().labels().margin[:, 0]
    paths, bar = store().ok_images()["path"].to_pylist(), sorted(red)[6]
    rows = [f"{path},{int(value > bar)}" for path, value in zip(paths, red, strict=True)]
    Path("checked.csv").write_text("path,red\n" + "\n".join(rows))
    shown = run("label", "--prompts", "prompts.txt", "--labels", "checked.csv", "--offsets-from-people", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "Offsets fitted to labels by people" in shown.stdout
    report = run("label", "--prompts", "prompts.txt", "--labels", "checked.csv", "--offsets-from-people", "--json")
    [refitted] = json.loads(report.stdout)["refitted"]
    assert (refitted["domain"], refitted["answers"], refitted["yes"], refitted["before"]) == ("red", 12, 5, 0.0)
    assert sorted(red)[6] <= refitted["fit"]["offset"] <= sorted(red)[7]
    offset = refitted["fit"]["offset"] if refitted["fit"]["taken"] else 0.0
    assert store().labels().prompt_set.offsets == (offset, 0.001, 0.0)
    again = run("label", "--prompts", "prompts.txt", "--offsets-from-people", "--json")
    assert json.loads(again.stdout)["refitted"] == [refitted]


@pytest.mark.usefixtures("world")
def test_offsets_from_people_say_what_they_lack() -> None:
    nobody = run("label", "--prompts", "prompts.txt", "--offsets-from-people")
    assert nobody.exit_code == 1
    assert "no person said anything" in nobody.stderr
    for other in ("--without-people", "--choose-offsets", "--rule argmax"):
        refused = run(
            "label", "--prompts", "prompts.txt", "--labels", "labels.csv", "--offsets-from-people", *other.split()
        )
        assert refused.exit_code == 2, other
    assert run("label", "--from-folders", "--offsets-from-people").exit_code == 2
    assert store().revisions() == [1]
