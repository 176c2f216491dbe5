"""CLIP loads by folder, file and name; the text adapter is encode_text; the fingerprint tells models apart."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.errors
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch.nn import functional as F

from lanit.errors import LanitError
from lanit.prompts import PromptLearner
from pipeline.clip import sources as clip_sources
from pipeline.clip.fingerprint import Fingerprint
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpaqueText, OpenClipText
from pipeline.clip.towers import weights_digest

PHRASES = ["a face with eyeglasses.", "smiling", "", "a photo of a large dog, wearing a hat"]
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}


@pytest.fixture
def small_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A small architecture known to open_clip by name, and the default for weights files."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
        "text_cfg": TEXT,
    }
    (tmp_path / "Small-Test.json").write_text(json.dumps(config))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    open_clip.add_model_config(tmp_path / "Small-Test.json")
    monkeypatch.setattr(clip_sources, "DEFAULT_ARCHITECTURE", "Small-Test")
    return config


def adapter_features(text: Any, phrases: list[str], length: int) -> torch.Tensor:
    rows = [[text.sos, *text.tokenize(phrase), text.eos] for phrase in phrases]
    ends = torch.tensor([len(row) - 1 for row in rows])
    padded = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return text.encode(text.embed_tokens(padded), ends)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"custom_text": True},
        {"custom_text": True, "quick_gelu": True, "text_cfg": TEXT | {"proj_bias": True}},
        {"custom_text": True, "text_cfg": TEXT | {"pool_type": "eos", "eos_id": 49407}},
        {"custom_text": True, "text_cfg": TEXT | {"proj_type": "none", "width": 24}},
    ],
    ids=["CLIP", "CustomTextCLIP", "quick-gelu-bias", "pool-eos", "no-projection"],
)
def test_text_adapter_is_encode_text(make_clip: Callable[..., Path], changes: dict[str, Any]) -> None:
    clip = load_clip(str(make_clip(seed=3, **changes)))
    assert isinstance(clip.text, OpenClipText)
    expected = clip.model.encode_text(clip.tokenizer(PHRASES))  # type: ignore[operator]
    longest = max(len(clip.text.tokenize(phrase)) for phrase in PHRASES) + 2
    for length in (clip.text.context_length, longest):  # METHOD 16
        torch.testing.assert_close(adapter_features(clip.text, PHRASES, length), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(clip.encode_texts(PHRASES), expected)


def test_prompt_learner_equals_the_mean_of_encode_text(tiny_clip: Any) -> None:
    templates, domains = ["a face with {}.", "the face image of {}."], ["smiling", "black hair"]
    ours, base = PromptLearner(tiny_clip.text, domains, templates).text_features()
    for row, domain in zip(ours, domains, strict=True):
        features = tiny_clip.encode_texts([template.format(domain) for template in templates]).mean(dim=0)
        torch.testing.assert_close(row, F.normalize(features, dim=0), rtol=1e-5, atol=1e-6)
    features = tiny_clip.encode_texts(["a face with.", "the face image of."]).mean(dim=0)
    torch.testing.assert_close(base, F.normalize(features, dim=0), rtol=1e-5, atol=1e-6)


def test_gradient_flows_to_embedded_tokens_only(tiny_clip: Any) -> None:
    embedded = torch.randn(2, 5, 16, requires_grad=True)
    tiny_clip.text.encode(embedded, torch.tensor([4, 3])).sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[1, 4] == 0).all(), "a token after [eos] must not matter"
    assert (embedded.grad[0, 4] != 0).any()
    assert not any(parameter.requires_grad for parameter in tiny_clip.model.parameters())


def test_other_towers_encode_but_do_not_learn(make_clip: Callable[..., Path]) -> None:
    folder = make_clip(seed=4, custom_text=True, text_cfg=TEXT | {"no_causal_mask": True})
    clip = load_clip(str(folder))
    assert isinstance(clip.text, OpaqueText)
    assert clip.encode_texts(["smiling"]).shape == (1, 24)
    with pytest.raises(LanitError, match="not causal"):
        PromptLearner(clip.text, ["smiling"], ["a face with {}."])


def test_images_are_encoded_to_unit_norm_at_any_size_and_differentiably(tiny_clip: Any) -> None:
    images = (torch.rand(3, 3, 20, 45) * 2 - 1).requires_grad_()
    embeddings = tiny_clip.encode_images(images)
    assert embeddings.shape == (3, tiny_clip.embedding_dim)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    expected = tiny_clip.model.encode_image(tiny_clip.preprocessing(images))
    torch.testing.assert_close(embeddings, F.normalize(expected, dim=1))
    embeddings[:, 0].sum().backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()
    assert (images.grad != 0).any()


def test_too_long_a_text_is_refused(tiny_clip: Any) -> None:
    with pytest.raises(LanitError, match="20 tokens"):
        tiny_clip.encode_texts(["a " * 30])


def test_unknown_words_only_where_a_vocabulary_is_shipped(
    tiny_clip_folder: Path, tiny_clip: Any, tmp_path: Path
) -> None:
    assert tiny_clip.unknown_words(["a green zebra"]) == []
    folder = shutil.copytree(tiny_clip_folder, tmp_path / "with words")
    (folder / "vocabulary.json").write_text('["a", "face", "smiling"]')
    clip = load_clip(str(folder))
    assert clip.fingerprint == tiny_clip.fingerprint
    assert clip.unknown_words(["Smiling, a Zebra-face", "zebra", "größe 3"]) == ["zebra", "größe", "3"]


def test_fingerprint_is_of_the_model_not_of_the_file(small_default: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = open_clip.CLIP(**copy.deepcopy(small_default)).state_dict()
    (tmp_path / "apart").mkdir()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "apart/w.pt")
    from_file = load_clip(str(tmp_path / "apart" / "w.pt"))
    assert from_file.fingerprint.architecture == "Small-Test"
    assert from_file.fingerprint.activation == "gelu"

    from safetensors.torch import save_file

    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": small_default}))
    assert load_clip(str(folder)).fingerprint == from_file.fingerprint
    assert load_clip(str(folder / "open_clip_model.safetensors")).fingerprint == from_file.fingerprint
    assert Fingerprint.from_json(json.loads(json.dumps(from_file.fingerprint.to_json()))) == from_file.fingerprint

    state["visual.conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(state, folder / "open_clip_model.safetensors")
    assert from_file.fingerprint.differences(load_clip(str(folder)).fingerprint) == ["weights_sha256"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_torchscript_archive_is_read_with_quick_gelu(small_default: dict[str, Any], tmp_path: Path) -> None:
    class Holder(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            for name, child in model.named_children():
                self.add_module(name, child)
            for name, parameter in model.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            self.register_buffer("context_length", torch.tensor(20))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    model = open_clip.CLIP(**copy.deepcopy(small_default))
    torch.jit.trace(Holder(model), torch.zeros(1)).save(str(tmp_path / "openai.pt"))  # type: ignore[no-untyped-call]
    clip = load_clip(str(tmp_path / "openai.pt"))
    assert clip.fingerprint.activation == "quick_gelu"
    assert clip.fingerprint.weights_sha256 == weights_digest(model, model.state_dict())


def test_weights_of_another_architecture(small_default: dict[str, Any], tmp_path: Path) -> None:
    wider = small_default | {"embed_dim": 32}
    torch.save(open_clip.CLIP(**copy.deepcopy(wider)).state_dict(), tmp_path / "wide.pt")
    with pytest.raises(LanitError, match="do not fit the architecture Small-Test") as caught:
        load_clip(str(tmp_path / "wide.pt"))
    assert "--clip-arch" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "architecture", "expected"),
    [
        ("no-such-model", None, "there is no CLIP 'no-such-model'"),
        ("ViT-B-32/no-such-tag", None, "no weights 'no-such-tag'"),
        ("missing.safetensors", None, "there is no weights file"),
        ("empty-folder", None, "has no open_clip_config.json"),
        ("no-weights", None, "has no weights"),
        ("bad-json", None, "not valid JSON"),
        ("no-config", None, "has no model_cfg"),
        ("text.pt", None, "cannot be read as CLIP weights"),
        ("text.safetensors", "ViT-B-99", "there is no CLIP 'ViT-B-99'"),
        ("ViT-B-32/openai", "ViT-B-32", "--clip-arch is only for a weights file"),
    ],
)
def test_bad_specs_name_what_to_type(
    small_default: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    architecture: str | None,
    expected: str,
) -> None:
    for name, config in {"no-weights": '{"model_cfg": {"embed_dim": 4}}', "bad-json": "{", "no-config": "[]"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "open_clip_config.json").write_text(config)
        if name != "no-weights":
            (tmp_path / name / "model.safetensors").write_bytes(b"")
    (tmp_path / "empty-folder").mkdir()
    (tmp_path / "text.pt").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LanitError, match=expected) as caught:
        load_clip(spec, architecture=architecture)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["ViT-B-32/openai", "hf-hub:no/such"])
@pytest.mark.parametrize("offline", [True, False])
def test_weights_out_of_reach(
    spec: str, offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(clip_sources, "_hub_answers", lambda: False)
    with pytest.raises(LanitError, match="HF_HUB_OFFLINE is set" if offline else "cannot be reached") as caught:
        load_clip(spec)
    assert "--clip sample" in caught.value.hint
    assert offline is huggingface_hub.constants.HF_HUB_OFFLINE
    assert capfd.readouterr() == ("", "")


def test_a_cached_clip_loads_where_the_hub_is_away_and_changes_nothing_for_others(
    tiny_clip_folder: Path, tiny_clip: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client of the hub is told for each file to ask its cache alone; its setting for the process stays."""
    asked: list[tuple[str, bool]] = []

    def cached(repository: str, name: str, *, local_files_only: bool) -> str:
        asked.append((repository, local_files_only))
        assert huggingface_hub.constants.HF_HUB_OFFLINE is False
        if not (tiny_clip_folder / name).is_file():
            raise huggingface_hub.errors.LocalEntryNotFoundError(name)
        return str(tiny_clip_folder / name)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", cached)
    monkeypatch.setattr(clip_sources, "_hub_answers", lambda: False)
    loaded = load_clip("hf-hub:some/clip")
    assert loaded.spec == "hf-hub:some/clip"
    assert loaded.fingerprint == tiny_clip.fingerprint
    assert set(asked) == {("some/clip", True)}


@pytest.mark.parametrize("tag", ["ViT-B-32/openai", "ViT-B-16-SigLIP/webli", "RN50/yfcc15m", "ViT-B-32/laion2b_e16"])
def test_a_tag_is_prepared_for_as_open_clip_does(tag: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its weights come to open_clip as a file; the preparation of images that goes with the tag must not be lost."""
    name, _, weights = tag.partition("/")
    monkeypatch.setattr(clip_sources, "fetch_first", lambda *_, **__: tmp_path / "weights")
    file, preprocessing = clip_sources._weights_of_tag(name, weights)
    assert file == str(tmp_path / "weights")
    default = dataclasses.asdict(PreprocessCfg())
    expected = merge_preprocess_dict(default, open_clip.get_pretrained_cfg(name, weights))
    assert merge_preprocess_dict(default, preprocessing) == expected


def test_the_openai_tag_is_built_with_quick_gelu() -> None:
    """open_clip only warns about this; the embeddings would be wrong."""
    assert clip_sources._from_name("ViT-B-32").config["quick_gelu"] is True
    assert clip_sources._from_name("ViT-B-32").spec == "ViT-B-32/openai"
    assert not clip_sources._from_name("ViT-B-32/laion2b_s34b_b79k").config.get("quick_gelu")


def test_loading_leaves_logging_and_warnings_alone(tiny_clip_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = (logging.root.manager.disable, logging.root.handlers[:], warnings.filters[:])
    load_clip(str(tiny_clip_folder))
    assert (logging.root.manager.disable, logging.root.handlers[:], warnings.filters[:]) == before
    assert capfd.readouterr() == ("", "")


def test_preprocessing_comes_with_the_model(make_clip: Callable[..., Path]) -> None:
    wanted = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "interpolation": "bilinear", "resize_mode": "squash"}
    clip = load_clip(str(make_clip(preprocess=wanted)))
    assert clip.fingerprint.preprocessing == wanted | {"size": 32, "fill_color": 0}
    assert clip.preprocessing.mean == (0.4, 0.5, 0.6)
    assert clip.preprocessing.std == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("value", [0.5, [0.5], [0.5, 0.5, 0.5]], ids=["number", "list of one", "three"])
def test_one_number_counts_for_all_channels(make_clip: Callable[..., Path], value: Any) -> None:
    clip = load_clip(str(make_clip(preprocess={"mean": value, "std": value})))
    assert (clip.preprocessing.mean, clip.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("value", [[0.5, 0.5], 0, "grey", [0.5, 0.5, float("nan")]], ids=str)
def test_a_deviation_that_is_no_number_for_each_channel_is_refused(make_clip: Callable[..., Path], value: Any) -> None:
    with pytest.raises(LanitError, match=r"the std of CLIP .* is no number for each of three channels"):
        load_clip(str(make_clip(preprocess={"mean": 0.5, "std": value})))


def test_a_tower_of_timm_of_another_size_is_refused_in_one_line(make_clip: Callable[..., Path]) -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "image_size": 256}
    folder = make_clip(vision_cfg=vision)
    with pytest.raises(LanitError, match="reads 224 px, and its configuration says 256 px") as caught:
        load_clip(str(folder))
    assert "Set image_size to 224" in caught.value.hint
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = 224
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_clip(str(folder)).preprocessing.size == 224
