"""Every CLIP that open_clip lists reads text here: from local files where its extra is installed, else in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPTextCfg, _build_text_tower
from safetensors.torch import save_file
from torch.nn import functional as F

from lanit.errors import LanitError
from lanit.sentences import without_phrase
from pipeline.clip import tokenizers
from pipeline.clip.models import load_clip
from pipeline.clip.text_towers import OpenClipText
from pipeline.clip.tokenizers import local_text, make_tokenizer
from pipeline.extras import install
from pipeline.prompts.embed_prompts import embed_prompts
from pipeline.prompts.prompt_sets import PromptSet
from tests.test_sentences import PHRASES, TEMPLATES
from tests.tokenizer_builders import FAMILIES, family_of, write_tokenizer

TAGS = open_clip.list_pretrained()
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
SMALL = {"vocab_size": 1000, "width": 32, "heads": 2, "layers": 1, "context_length": 77}
TEXT: dict[str, dict[str, Any]] = {
    "siglip": SMALL | {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
                       "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    "siglip2": SMALL | {"hf_tokenizer_name": "timm/ViT-B-16-SigLIP2", "tokenizer_kwargs": {"clean": "canonicalize"},
                        "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
    "mt5": {"hf_tokenizer_name": "google/mt5-base", "hf_model_name": "google/mt5-base", "hf_proj_type": "linear"},
    "xlm": SMALL | {"hf_tokenizer_name": "facebook/xlm-v-base", "pool_type": "eos", "eos_id": 2},
    "nllb": {"hf_tokenizer_name": "facebook/nllb-200-distilled-600M", "hf_proj_type": "linear",
             "hf_model_name": "facebook/nllb-200-distilled-600M", "hf_pooler_type": "cls_pooler"},
    "bert": SMALL | {"hf_tokenizer_name": "bert-base-uncased", "tokenizer_kwargs": {"strip_sep_token": True},
                     "no_causal_mask": True, "pool_type": "last"},
    "roberta": {"hf_tokenizer_name": "roberta-base", "hf_model_name": "roberta-base", "hf_proj_type": "mlp"},
}  # fmt: skip


def needs_transformers() -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    needs_transformers()
    made: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in made:
            made[family] = write_tokenizer(tmp_path_factory.mktemp(family), family)
        return made[family]

    return folder_of


def save_clip(folder: Path, text: dict[str, Any], beside: Path) -> None:
    """The weights and the configuration of a tiny CLIP, as they are shared, beside its tokenizer."""
    for file in beside.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": text, "custom_text": True}
    torch.manual_seed(7)
    model = open_clip.CustomTextCLIP(
        embed_dim=24, vision_cfg=VISION, text_cfg=local_text("tiny", text, folder, remote=False)
    )
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / "weights.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))


@pytest.mark.parametrize("family", FAMILIES)
def test_two_hundred_odd_sentences_by_the_tokenizer_beside_the_weights(
    family: str, tokenizer_files: Callable[[str], Path], tmp_path: Path
) -> None:
    save_clip(tmp_path, TEXT[family], tokenizer_files(family))
    clip = load_clip(str(tmp_path))
    theirs = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    least = 1.0
    for template in TEMPLATES:
        sentences = [template.replace("{}", phrase) for phrase in PHRASES]
        embedded = embed_prompts(clip, PromptSet(PHRASES, (template,), (without_phrase(template),), "odd"))
        expected = clip.model.encode_text(theirs(sentences), normalize=True)  # type: ignore[operator]
        least = min(least, float((embedded.domains * expected).sum(dim=1).min()))
    assert least > 0.9999
    assert len({tuple(row) for row in theirs(list(PHRASES)).tolist()}) > 7, "the tokenizer tells phrases apart"
    with pytest.raises(LanitError, match="is longer than the 77 tokens"):
        clip.encode_texts(["cat hat " * 60])


def test_every_tag_has_a_tokenizer_and_a_text_tower_from_local_files(tokenizer_files: Callable[[str], Path]) -> None:
    """Towers of one layer and few channels: what differs between tags is the rest of their configuration."""
    built: dict[str, bool] = {}
    for name, _ in TAGS:
        config = open_clip.get_model_config(name)
        text = config["text_cfg"]
        key = json.dumps(text, sort_keys=True)
        if key in built:
            continue
        small = dict(text)
        if not text.get("hf_model_name"):
            vocabulary = 1000 if text.get("hf_tokenizer_name") else text.get("vocab_size", 49408)
            small |= {"width": 16, "heads": 2, "layers": 1, "vocab_size": vocabulary}
        repository = text.get("hf_tokenizer_name")
        beside = tokenizer_files(family_of(repository)) if repository else None
        tokenizer = make_tokenizer(name, small, beside, remote=False)
        tower = _build_text_tower(16, CLIPTextCfg(**local_text(name, small, beside, remote=False)))
        found = tower.eval()(tokenizer(["a photo of many cats", "a hat"]))
        features = found[0] if isinstance(found, tuple) else found
        built[key] = features.shape == (2, 16) and bool(torch.isfinite(features).all())
    assert len(TAGS) >= 196
    assert all(built.values())


def test_without_the_extra_every_tag_reads_text_or_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizers, "_installed", lambda name: False)
    reads = 0
    for name, tag in TAGS:
        text = open_clip.get_model_config(name)["text_cfg"]
        if not text.get("hf_tokenizer_name"):
            assert isinstance(make_tokenizer(f"{name}/{tag}", text, None, remote=False), open_clip.SimpleTokenizer)
            reads += 1
            continue
        with pytest.raises(LanitError, match="transformers, sentencepiece and protobuf") as caught:
            make_tokenizer(f"{name}/{tag}", text, None, remote=False)
        assert caught.value.hint == f"Type: {install('transformers')}"
    assert reads == 149


def test_images_need_no_tokenizer(tokenizer_files: Callable[[str], Path], tmp_path: Path) -> None:
    save_clip(tmp_path, TEXT["siglip"], tokenizer_files("siglip"))
    for file in tokenizer_files("siglip").iterdir():
        (tmp_path / file.name).unlink()
    clip = load_clip(str(tmp_path))
    assert clip.encode_images(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    with pytest.raises(LanitError, match="has no tokenizer of timm/ViT-B-16-SigLIP, and the cache") as caught:
        clip.encode_texts(["a cat"])
    assert (
        caught.value.hint == f"Copy tokenizer.json and tokenizer_config.json of timm/ViT-B-16-SigLIP into {tmp_path}."
    )


def test_the_mean_over_templates_weighs_features_of_coca_as_of_any_other(tmp_path: Path) -> None:
    """Its ``encode_text`` makes unit vectors unless told not to; the mean is of features as they are (METHOD §1)."""
    text = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1, "embed_cls": True,
            "output_tokens": True}  # fmt: skip
    vision = VISION | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}
    both = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text, "multimodal_cfg": both, "custom_text": True}
    torch.manual_seed(0)
    model = open_clip.CoCa(**{name: value for name, value in config.items() if name != "custom_text"})
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    clip = load_clip(str(tmp_path))
    prompts = PromptSet(("cat",), ("a {}.", "many {}s"), ("a.", "many"), "two")
    latents = [clip.model.text(clip.tokenizer([text]))[0][0] for text in ("a cat.", "many cats")]  # type: ignore[operator]
    assert abs(float(latents[0].norm()) - 1) > 1e-3
    torch.testing.assert_close(
        embed_prompts(clip, prompts).domains[0], F.normalize((latents[0] + latents[1]) / 2, dim=0)
    )


def test_the_margin_is_the_log_odds_of_a_model_that_was_trained_with_a_sigmoid(make_clip: Callable[..., Path]) -> None:
    """log σ/(1−σ) of α f + b, of the phrase less that of the base: α times the margin, whatever the bias."""
    clip = load_clip(str(make_clip(seed=2, init_logit_bias=-10.0, init_logit_scale=2.0)))
    assert isinstance(clip.text, OpenClipText)
    embedded = embed_prompts(clip, PromptSet(("cat", "hat"), ("a {}.",), ("a.",), "two"))
    images = clip.encode_images(torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    texts = torch.cat([embedded.domains, embedded.base[None]])
    scale, bias = clip.model.logit_scale.exp(), clip.model.logit_bias  # type: ignore[operator, union-attr]
    probability = torch.sigmoid((scale * images @ texts.T + bias).double())
    odds = torch.logit(probability)
    expected = (odds[:, :-1] - odds[:, -1:]).float()
    torch.testing.assert_close(embedded.margins(images) * embedded.scale, expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(embedded.labels(images), probability[:, :-1] > probability[:, -1:])
