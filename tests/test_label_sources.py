"""Labels from prompts, from people, or from people alone: what each option means and which contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanit.errors import LanitError, UsageError
from lanit.rules import Rule
from pipeline.labelling.known_labels import Truth
from pipeline.labelling.label import HowToLabel
from pipeline.labelling.label_sources import LabelRequest, label_source
from pipeline.prompts.prompt_sets import PromptSet, ensemble
from pipeline.store.store import Store

DOMAINS = ("fox", "snow leopard")
PATHS = ["Fox/1.png", "Fox/2.png", "snow_leopard/3.png", "snow_leopard/young/4.png", "5.png"]


@pytest.fixture
def store(make_store: Callable[..., Store]) -> Store:
    return make_store(np.eye(5, dtype=np.float32), paths=PATHS)


def source(store: Store, **options: Any) -> tuple[PromptSet, HowToLabel]:
    request = LabelRequest(**options)
    request.check()
    found = label_source(store, request)
    assert found is not None
    return found


@pytest.fixture
def phrases(tmp_path: Path) -> str:
    (tmp_path / "test.txt").write_text("template: a {}.\nbase: a.\nfox\nsnow leopard\n", encoding="utf-8")
    return str(tmp_path / "test.txt")


def test_prompts_alone_ask_clip(store: Store, phrases: str) -> None:
    prompts, how = source(store, prompts=phrases)
    assert prompts.domains == DOMAINS
    assert (how.given, how.answers, how.rule, how.people) == (None, None, Rule(), True)
    assert source(store, prompts=phrases, rule="top-3")[1].rule == Rule("top-k", 3)


def test_labels_by_people_join_those_of_clip(store: Store, phrases: str, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,Fox\nFox/1.png,1\n5.png,\n", encoding="utf-8")
    _, how = source(store, prompts=phrases, labels=str(table))
    assert how.rule == Rule()
    assert how.given is None
    assert values(how.answers, store) == [[1, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1]]
    folders = source(store, prompts=phrases, labels="folders")[1].answers
    assert values(folders, store) == [[1, 0], [1, 0], [0, 1], [0, 1], [-1, -1]]


def test_folders_alone_name_the_domains(store: Store) -> None:
    prompts, how = source(store, from_folders=True, noun="animal")
    assert prompts.domains == ("Fox", "snow leopard", "young")
    assert prompts.templates == ensemble("animal")
    assert how.rule == Rule("given")
    assert values(how.given, store, prompts.domains) == [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 1], [-1, -1, -1]]


def test_a_table_alone_names_the_domains(store: Store, tmp_path: Path) -> None:
    table = tmp_path / "animals.csv"
    table.write_text("path,Snow_Leopard,fox\nFox/1.png,-1,1\n5.png,1,\n", encoding="utf-8")
    prompts, how = source(store, from_table=table)
    assert prompts.domains == ("Snow Leopard", "fox")
    assert (prompts.name, how.rule) == ("animals", Rule("given"))
    assert values(how.given, store, prompts.domains) == [[0, 1], [-1, -1], [-1, -1], [-1, -1], [1, -1]]


def test_options_that_contradict_each_other_are_refused(store: Store, phrases: str, tmp_path: Path) -> None:
    table = tmp_path / "x.csv"
    for request in (
        LabelRequest(),
        LabelRequest(prompts="p", from_folders=True),
        LabelRequest(from_folders=True, from_table=table),
        LabelRequest(prompts="p", labels="l", from_folders=True),
    ):
        with pytest.raises(UsageError, match="one of --prompts, --from-folders, --from-table and --clusters"):
            request.check()
    for message, request in (
        ("--labels goes with phrases", LabelRequest(labels="folders", from_folders=True)),
        ("--without-people leaves those out", LabelRequest(prompts="p", labels="folders", people=False)),
        ("--rule given", LabelRequest(prompts="p", rule="given", people=False)),
        ("no rule 'best'", LabelRequest(prompts="p", rule="best")),
    ):
        with pytest.raises(UsageError, match=message):
            request.check()
    with pytest.raises(UsageError, match="--rule given needs"):
        source(store, prompts=phrases, rule="given")
    for request in (
        LabelRequest(prompts="p", labels="folders", rule="given"),
        LabelRequest(prompts="p"),
        LabelRequest(from_folders=True),
        LabelRequest(from_table=table),
    ):
        request.check()
    with pytest.raises(LanitError, match="no file of labels"):
        source(store, prompts=phrases, labels=str(tmp_path / "none.csv"))


def values(truth: Truth | None, store: Store, domains: tuple[str, ...] = DOMAINS) -> list[list[int]]:
    """What the truth says of each image of the store."""
    assert truth is not None
    images = store.ok_images()
    found: list[list[int]] = truth.values(truth.align(images["image_id"], images["path"]), domains).tolist()
    return found
