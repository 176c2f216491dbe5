"""The recommended CLIPs and the names of transformers are what open_clip has; the list loads and fetches nothing."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from pipeline.clip import model_list, sources
from pipeline.clip.models import DEFAULT_CLIP
from pipeline.clip.presets import OF_TRANSFORMERS, PRESETS

TAGS = {f"{name}/{tag}" for name, tag in open_clip.list_pretrained()}


def test_every_preset_and_every_name_of_transformers_is_a_tag_of_open_clip() -> None:
    assert {preset.clip for preset in PRESETS.values()} <= TAGS
    assert set(OF_TRANSFORMERS.values()) <= TAGS
    assert PRESETS["default"].clip == DEFAULT_CLIP


def test_the_arithmetic_of_a_preset_is_that_of_its_vision_transformer() -> None:
    """Per layer 24 n w² for its products and 4 n² w for attention over n tokens of width w, with the patches before."""
    for name in ("default", "fast", "good"):
        vision = open_clip.get_model_config(PRESETS[name].clip.partition("/")[0])["vision_cfg"]
        width, patches = vision["width"], (vision["image_size"] // vision["patch_size"]) ** 2
        tokens = patches + 1
        layer = 24 * tokens * width**2 + 4 * tokens**2 * width
        expected = vision["layers"] * layer + patches * 2 * 3 * vision["patch_size"] ** 2 * width
        assert PRESETS[name].gigaflops == pytest.approx(expected / 1e9, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "resolved"),
    [
        ("good", "ViT-L-14/datacomp_xl_s13b_b90k"),
        ("openai/clip-vit-base-patch32", "ViT-B-32/openai"),
        ("hf-hub:openai/clip-vit-large-patch14-336", "ViT-L-14-336/openai"),
        ("google/siglip2-so400m-patch14-384", "ViT-SO400M-14-SigLIP2-378/webli"),
        ("facebook/metaclip-2-worldwide-giant", "ViT-bigG-14-worldwide/metaclip2_worldwide"),
        ("ViT-B-32/laion2b_e16", "ViT-B-32/laion2b_e16"),
    ],
)
def test_a_name_becomes_a_tag(spec: str, resolved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    assert sources.resolve(spec, None).spec == resolved


def test_a_repository_needs_no_prefix_and_one_without_a_clip_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"model_cfg": {"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))

    def first(repository: str, names: list[str], *, cached: bool) -> Path:
        if repository == "some/words":
            raise huggingface_hub.errors.EntryNotFoundError("404")
        return tmp_path / names[0]

    monkeypatch.setattr(sources, "fetch_first", first)
    assert sources.resolve("some/clip", None).spec == "hf-hub:some/clip"
    with pytest.raises(LanitError, match="some/words holds no CLIP in open_clip's form"):
        sources.resolve("some/words", None)
    with pytest.raises(LanitError, match="Did you mean ViT-B-32"):
        sources.resolve("ViT-B-23/openai", None)


def test_the_list_tells_what_is_here_and_how_fast(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def cached(repository: str, file: str) -> str | None:
        return str(tmp_path / file) if "DataComp" in repository and "L-14" in repository else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(model_list, "gigaflops_per_second", lambda device: 1620.0)
    done = CliRunner().invoke(cli.app, ["models", "--device", "cpu", "--json"])
    assert done.exit_code == 0, done.output
    rows = {row["preset"]: row for row in json.loads(done.stdout)["models"]}
    assert [name for name, row in rows.items() if row["cached"]] == ["good"]
    assert rows["good"]["images_per_second"] == 10
    assert (rows["best"]["size"], rows["best"]["context"], rows["best"]["extra"]) == (384, 64, "transformers")
    assert [name for name, row in rows.items() if row["learns"]] == ["default", "fast", "good"]
    shown = CliRunner().invoke(cli.app, ["models", "--device", "cpu"])
    assert "Apache-2.0" in shown.stdout
    assert "1,620 GFLOP/s on cpu" in shown.stdout


def test_the_speed_is_measured_in_a_moment() -> None:
    assert model_list.gigaflops_per_second(torch.device("cpu")) > 0.1
