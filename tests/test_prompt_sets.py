"""Prompt files: what each form means, and what each mistake says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lanit.errors import LanitError
from pipeline.prompts.prompt_sets import PromptSet, built_in_names, ensemble, prompt_set_of, read_prompt_set
from pipeline.sample_world.faces import ATTRIBUTES


def _write(folder: Path, text: str, name: str = "prompts.txt") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_text_file_with_everything(tmp_path: Path) -> None:
    text = """\ufeff# a comment
template: a face with {}.
base: a face.
noun:  face

  blond   hair   # the fair kind
EYEGLASSES
café: black
"""
    prompts = read_prompt_set(_write(tmp_path, text, "my faces.txt"))
    assert prompts.domains == ("blond hair", "EYEGLASSES", "café: black")
    assert prompts.templates == ("a face with {}.", *ensemble("face"))
    assert prompts.bases[:2] == ("a face.", "a face photo with.")
    assert prompts.name == "my faces"


def test_noun_alone_gives_the_nine_templates_and_the_option_replaces_it(tmp_path: Path) -> None:
    path = _write(tmp_path, "noun: face\nsmiling\n")
    assert read_prompt_set(path).templates == ensemble("face")
    assert len(ensemble("face")) == 9
    assert read_prompt_set(path, noun="cat").templates[0] == "a cat photo with {}."


def test_no_noun_and_no_template_gives_general_templates(tmp_path: Path) -> None:
    prompts = read_prompt_set(_write(tmp_path, "red car\nvan"))
    assert prompts.templates[0] == "a photo of {}."
    assert prompts.bases[0] == "a photo of."
    assert len(prompts.bases) == len(prompts.templates)


def test_a_template_alone_stands_alone(tmp_path: Path) -> None:
    prompts = read_prompt_set(_write(tmp_path, "template: {} on a plate\nrice"))
    assert prompts.templates == ("{} on a plate",)
    assert prompts.bases == ("on a plate",)


def test_json_says_the_same_as_text(tmp_path: Path) -> None:
    text = read_prompt_set(_write(tmp_path, "noun: face\ntemplate: a face with {}.\nbase: a face.\nsmiling\nbald"))
    data = {"noun": "face", "templates": ["a face with {}."], "bases": ["a face."], "domains": ["smiling", "bald"]}
    assert read_prompt_set(_write(tmp_path, json.dumps(data), "prompts.json")) == text


def test_offset_and_weight_stand_behind_a_bar(tmp_path: Path) -> None:
    text = "smiling | offset=0.01 weight=2  # firmer\nbald|weight=0.5\neyeglasses |offset=-1e-3\nblond hair\n"
    prompts = read_prompt_set(_write(tmp_path, text))
    assert prompts.domains == ("smiling", "bald", "eyeglasses", "blond hair")
    assert prompts.offsets == (0.01, 0.0, -0.001, 0.0)
    assert prompts.weights == (2.0, 0.5, 1.0, 1.0)
    data = {
        "domains": [
            {"phrase": "smiling", "offset": 0.01, "weight": 2},
            {"phrase": "bald", "weight": 0.5},
            {"phrase": "eyeglasses", "offset": -0.001},
            "blond hair",
        ]
    }
    assert read_prompt_set(_write(tmp_path, json.dumps(data), "prompts.json")) == prompts
    assert PromptSet.from_json(json.loads(json.dumps(prompts.to_json()))) == prompts


def test_a_set_without_offsets_is_stored_and_digested_as_before(tmp_path: Path) -> None:
    plain = read_prompt_set(_write(tmp_path, "smiling\nbald"))
    assert plain.offsets == (0.0, 0.0)
    assert plain.weights == (1.0, 1.0)
    assert set(plain.to_json()) == {"name", "domains", "templates", "bases"}
    others = [read_prompt_set(_write(tmp_path, f"smiling | {setting}\nbald")) for setting in ("offset=1", "weight=2")]
    assert len({plain.digest(), *(other.digest() for other in others)}) == 3
    with pytest.raises(LanitError, match="incomplete"):
        PromptSet.from_json(plain.to_json() | {"offsets": [0.1]})


def test_phrases_that_are_given_become_a_set() -> None:
    prompts = prompt_set_of(["snow  leopard", "Fox"], "the folders", "folders", noun="animal")
    assert prompts.domains == ("snow leopard", "Fox")
    assert prompts.templates == ensemble("animal")
    with pytest.raises(LanitError, match="the folders, phrase 2: 'a, b' has a comma") as caught:
        prompt_set_of(["fox", "a, b"], "the folders", "folders", advice="Rename it.")
    assert caught.value.hint == "Rename it."
    with pytest.raises(LanitError, match="'Fox' repeats phrase 1"):
        prompt_set_of(["fox", "Fox"], "the folders", "folders")


def test_stored_form_comes_back_and_the_name_is_no_part_of_the_digest(tmp_path: Path) -> None:
    prompts = read_prompt_set("celeba-hq-10")
    assert PromptSet.from_json(json.loads(json.dumps(prompts.to_json()))) == prompts
    renamed = PromptSet(prompts.domains, prompts.templates, prompts.bases, "other")
    assert renamed.digest() == prompts.digest()
    shorter = PromptSet(prompts.domains[:-1], prompts.templates, prompts.bases, prompts.name)
    assert shorter.digest() != prompts.digest()
    with pytest.raises(LanitError):
        PromptSet.from_json({"domains": ["a"]})


@pytest.mark.parametrize("name", built_in_names())
def test_built_in_sets_are_complete(name: str) -> None:
    prompts = read_prompt_set(name)
    assert len(prompts.domains) == (12 if name == "sample-faces" else int(name.rsplit("-", 1)[1]))
    assert len(prompts.templates) == len(prompts.bases) == 10
    assert not any("noun" in template for template in prompts.templates)


def test_built_in_sets_cover_the_paper_and_the_sample_world() -> None:
    names = set(built_in_names())
    families = [f"{family}-{count}" for family in ("animal-faces", "celeba-hq", "food") for count in (4, 7, 10, 13, 16)]
    assert names == {*families, "lsun-car-10", "anime-10", "metfaces-10", "landscape-10", "sample-faces"}
    assert read_prompt_set("sample-faces").domains == ATTRIBUTES
    assert read_prompt_set("animal-faces-10").bases[0] == "a photo of the animal face."
    for family in ("animal-faces", "celeba-hq", "food"):
        ten, thirteen, sixteen = (set(read_prompt_set(f"{family}-{count}").domains) for count in (10, 13, 16))
        assert ten < thirteen < sixteen


MISTAKES = {
    "empty": ("", "no phrase"),
    "only comments": ("# nothing\n\n", "no phrase"),
    "only a noun": ("noun: face\n", "no phrase"),
    "duplicate": ("smiling\nbald\nSmiling\n", "line 3: 'Smiling' repeats line 1"),
    "template without a place": ("template: a face.\nsmiling", "line 1: the template 'a face.'"),
    "template with two places": ("template: a {} with {}.\nsmiling", "exactly once"),
    "template with a stray brace": ("template: a {face with {}.\nsmiling", "exactly once"),
    "template of nothing": ("template: {}s\nsmiling", "leaves no base prompt"),
    "template twice": ("template: a {}.\ntemplate: a {}.\nsmiling", "twice"),
    "too few bases": ("template: a {}.\ntemplate: the {}.\nbase: a.\nsmiling", "1 base and 2 template"),
    "base with a place": ("template: a {}.\nbase: a {}.\nsmiling", "without braces"),
    "base without a template": ("noun: face\nbase: a.\nsmiling", "1 base and 0 template"),
    "template among the phrases": ("smiling\na face with {}.", "line 2"),
    "several phrases on a line": ("smiling, bald", "line 1"),
    "header misspelt": ("templates: a {}.\nsmiling", "unknown header 'templates:'"),
    "header without text": ("noun:\nsmiling", "line 1"),
    "two nouns": ("noun: face\nnoun: cat\nsmiling", "second 'noun:'"),
    "punctuation only": ("smiling\n--\n", "line 2"),
    "bar without settings": ("smiling |", "nothing after the '|'"),
    "setting that is none": ("bald\nsmiling | 0.1", "line 2: cannot read '0.1'"),
    "two phrases by a bar": ("smiling | bald", "cannot read 'bald'"),
    "two bars": ("smiling | offset=0.1 | weight=2", "cannot read '|'"),
    "setting misspelt": ("smiling | ofset=0.1", "a phrase has no 'ofset'"),
    "setting twice": ("smiling | offset=0.1 offset=0.2", "cannot read 'offset=0.2'"),
    "offset that is no margin": ("smiling | offset=3", "the offset '3' is no number from -2 to 2"),
    "offset with a comma": ("smiling | offset=0,1", "the offset '0,1'"),
    "offset that is no number": ("smiling | offset=nan", "the offset 'nan'"),
    "weight of nothing": ("smiling | weight=0", "the weight '0' is no number above 0"),
    "weight without end": ("smiling | weight=inf", "the weight 'inf'"),
    "bar in JSON": ('{"domains": ["smiling | offset=0.1"]}', "has a bar"),
    "weight as text in JSON": ('{"domains": [{"phrase": "smiling", "weight": true}]}', "the weight 'True'"),
    "domains as one text": ('{"domains": "smiling"}', "list of texts"),
    "no phrase in JSON": ('{"domains": [{"weight": 2}]}', "list of texts"),
    "not text": ("smiling\x00\x01", "not a text file"),
    "broken JSON": ('{"domains": [\n"smiling",]}', "line 2: not valid JSON"),
    "JSON of another kind": ('{"domain": ["smiling"]}', "unknown key 'domain'"),
    "JSON with a number": ('{"domains": ["smiling", 3]}', "list of texts"),
    "a book": (f"smiling\n{'a ' * 5000}\n", "line 2: 'a a "),
    "a long header": (f"templat{'e' * 5000}: x\nsmiling", "line 1"),
    "a long template": (f"template: {'a ' * 5000}\nsmiling", "exactly once"),
    "a long setting": (f"smiling | {'q' * 5000}", "cannot read 'qqq"),
    "a long offset": (f"smiling | offset={'9' * 5000}", "the offset '999"),
    "a long noun": (f"noun: {'{' * 5000}\nsmiling", "is no noun"),
    "a long key": ('{"' + "k" * 5000 + '": 1}', "unknown key 'kkk"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_line_naming_the_place(mistake: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[mistake]
    with pytest.raises(LanitError) as caught:
        read_prompt_set(_write(tmp_path, text))
    assert expected in caught.value.message
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_missing_file_names_close_built_in_sets(tmp_path: Path) -> None:
    with pytest.raises(LanitError, match="celeba-hq-10"):
        read_prompt_set("celeba-10")
    with pytest.raises(LanitError, match="food-N"):
        read_prompt_set(str(tmp_path / "x.txt"))
    with pytest.raises(LanitError, match="folder"):
        read_prompt_set(str(tmp_path))


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(LanitError, match="not UTF-8"):
        read_prompt_set(str(path))
