"""Labels from prompts, from people, or from people alone: what each option means and which contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lanit.errors import LanitError, UsageError
from pipeline.labelling.label_sources import check_sources, label_source
from pipeline.prompts.prompt_sets import PromptSet, ensemble
from pipeline.store.store import Store

PROMPTS = PromptSet(("fox", "snow leopard"), ("a {}.",), ("a.",), "test")
PATHS = ["Fox/1.png", "Fox/2.png", "snow_leopard/3.png", "snow_leopard/young/4.png", "5.png"]


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store(np.eye(5, dtype=np.float32), paths=PATHS)


def test_prompts_alone_ask_clip(store: Store) -> None:
    source = label_source(store, PROMPTS)
    assert (source.prompts, source.given, source.rule) == (PROMPTS, None, "adaptive")


def test_labels_by_people_join_those_of_clip(store: Store, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,Fox\nFox/1.png,1\n5.png,\n", encoding="utf-8")
    source = label_source(store, PROMPTS, labels=str(table))
    assert source.rule == "adaptive"
    assert source.given is None
    assert source.answers is not None
    rows = source.answers.align(*_keys(store))
    assert source.answers.values(rows, PROMPTS.domains).tolist() == [[1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1]]
    folders = label_source(store, PROMPTS, labels="folders").answers
    assert folders is not None
    values = folders.values(folders.align(*_keys(store)), PROMPTS.domains)
    assert values.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1], [-1, -1]]


def test_folders_alone_name_the_domains(store: Store) -> None:
    source = label_source(store, None, noun="animal")
    assert source.prompts.domains == ("Fox", "snow leopard", "young")
    assert source.prompts.templates == ensemble("animal")
    assert source.rule == "given"
    assert source.given is not None
    values = source.given.values(source.given.align(*_keys(store)), source.prompts.domains)
    assert values.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [-1, -1, -1]]


def test_a_table_alone_names_the_domains(store: Store, tmp_path: Path) -> None:
    table = tmp_path / "animals.csv"
    table.write_text("path,Snow_Leopard,fox\nFox/1.png,-1,1\n5.png,1,\n", encoding="utf-8")
    source = label_source(store, None, from_table=table)
    assert source.prompts.domains == ("Snow Leopard", "fox")
    assert (source.prompts.name, source.rule) == ("animals", "given")
    assert source.given is not None
    values = source.given.values(source.given.align(*_keys(store)), source.prompts.domains)
    assert values.tolist() == [[0, 1], [-1, -1], [-1, -1], [-1, -1], [1, -1]]


def test_options_that_contradict_each_other_are_refused(store: Store, tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    for options in (
        (None, None, False, None),
        ("p", None, True, None),
        (None, None, True, table),
        ("p", "l", True, None),
    ):
        with pytest.raises(UsageError, match="one of --prompts, --from-folders, --from-table and --clusters"):
            check_sources(*options)
    with pytest.raises(UsageError, match="--labels goes with --prompts"):
        check_sources(None, "folders", True, None)
    with pytest.raises(UsageError, match="--without-people leaves those out"):
        check_sources("p", "folders", False, None, without_people=True)
    with pytest.raises(UsageError, match="--rule given"):
        check_sources("p", None, False, None, "given", without_people=True)
    with pytest.raises(UsageError, match="--rule given needs"):
        label_source(store, PROMPTS, rule="given")
    check_sources("p", "folders", False, None, "given")
    for options in (
        ("p", None, False, None),
        ("p", "l", False, None),
        (None, None, True, None),
        (None, None, False, table),
    ):
        check_sources(*options)
    with pytest.raises(LanitError, match="no file of labels"):
        label_source(store, PROMPTS, labels=str(tmp_path / "none.csv"))


def _keys(store: Store) -> tuple[object, object]:
    images = store.ok_images()
    return images["image_id"], images["path"]
