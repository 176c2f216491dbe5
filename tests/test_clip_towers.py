"""A side of a CLIP is loaded when it is used; the fingerprint needs neither, and is that of the whole model."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from pipeline.clip.models import ClipModel, load_clip
from pipeline.clip.towers import Uninitialised

TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16}
KINDS: dict[str, dict[str, Any]] = {
    "transformers": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "resnet": {"embed_dim": 16, "text_cfg": TEXT,
               "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}},
    "timm": {"embed_dim": 16, "vision_cfg": {"timm_model_name": "test_vit", "image_size": 160, "timm_pool": "token"},
             "text_cfg": TEXT, "custom_text": True},
    "coca": {"embed_dim": 16, "vision_cfg": VISION | {"attentional_pool": True, "attn_pooler_heads": 2,
             "output_tokens": True}, "text_cfg": TEXT | {"embed_cls": True, "output_tokens": True},
             "multimodal_cfg": TEXT, "custom_text": True},
    "sigmoid": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT, "init_logit_bias": -10.0},
}  # fmt: skip
CLASSES = {"timm": open_clip.CustomTextCLIP, "coca": open_clip.CoCa}


def whole(kind: str) -> Any:
    """As open_clip builds it, with weights of its own."""
    config = {name: value for name, value in copy.deepcopy(KINDS[kind]).items() if name != "custom_text"}
    torch.manual_seed(0)
    model = CLASSES.get(kind, open_clip.CLIP)(**config)
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.ndim == 1:
            buffer.uniform_(0.5, 2)  # of a batch normalisation, as training would leave them
    return model.eval()


def saved(folder: Path, kind: str, state: dict[str, torch.Tensor], form: str = "safetensors") -> str:
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": KINDS[kind], "preprocess_cfg": {}}))
    if form == "safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    else:
        torch.save(state, folder / "model.pth", _use_new_zipfile_serialization=form == "zip")
    return str(folder)


def digest_of(model: torch.nn.Module) -> str:
    """manifests/README.md: over names, types, shapes and bytes of the weights in sorted order, as loaded."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_fingerprint_and_embeddings_are_those_of_the_whole_model(kind: str, tmp_path: Path) -> None:
    model = whole(kind)
    clip = load_clip(saved(tmp_path, kind, model.state_dict()))
    assert clip.fingerprint.weights_sha256 == digest_of(model)
    images = torch.rand(2, 3, clip.preprocessing.size, clip.preprocessing.size)
    with torch.no_grad():
        torch.testing.assert_close(clip.encode_preprocessed(images), model.encode_image(images, normalize=True))
        tokens = clip.tokenizer(["a cat", "two dogs"])
        expected = model.encode_text(tokens, normalize=False)
        torch.testing.assert_close(clip.encode_texts(["a cat", "two dogs"]), expected)
    assert digest_of(clip.model) == digest_of(model)


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_no_kind_of_file_makes_another_model(form: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = whole("transformers")
    state = {name: value.to(dtype) for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    clip = load_clip(saved(tmp_path, "transformers", state, form))
    assert clip.fingerprint.weights_sha256 == digest_of(model) == digest_of(clip.model)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weights that models were given."""
    names: list[str] = []
    real: Callable[..., Any] = torch.nn.Module.load_state_dict

    def load(self: torch.nn.Module, state: Any, **options: Any) -> Any:
        names.extend(state)
        return real(self, state, **options)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", load)
    return names


def test_texts_load_no_image_tower_and_images_no_text(tiny_clip_folder: Path, loaded: list[str]) -> None:
    clip = load_clip(str(tiny_clip_folder))
    assert not loaded
    clip.encode_texts(["a cat"])
    clip.encode_texts(["a dog"])
    assert loaded
    assert not any(name.startswith("visual.") for name in loaded)
    assert "tokenizer" in vars(clip)

    count = len(loaded)
    other = load_clip(str(tiny_clip_folder))
    other.encode_images(torch.zeros(1, 3, 32, 32))
    assert len(loaded) > count
    assert all(name.startswith("visual.") for name in loaded[count:])
    assert not {"tokenizer", "text"} & vars(other).keys()
    assert sorted(loaded) == sorted(clip.model.state_dict()), "together they are the model"


def test_gradients_pass_a_tower_that_was_first_used_without(tiny_clip_folder: Path) -> None:
    for precision in ("fp32", "bf16"):
        with torch.inference_mode():
            clip: ClipModel = load_clip(str(tiny_clip_folder), precision=precision)  # type: ignore[arg-type]
            clip.encode_images(torch.zeros(1, 3, 32, 32))
            clip.encode_texts(["a cat"])
        images = torch.rand(1, 3, 32, 32, requires_grad=True)
        clip.encode_images(images)[0, 0].backward()
        assert images.grad is not None
        assert not any(parameter.requires_grad for parameter in clip.model.parameters())


def test_building_draws_no_weights_and_keeps_buffers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with Uninitialised():
        linear = torch.nn.Linear(300, 200)
        torch.nn.init.normal_(linear.weight)
        torch.nn.init.xavier_uniform_(linear.weight)
        mask = torch.empty(4, 4).fill_(float("-inf")).triu_(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert linear.weight.shape == (200, 300)
    np.testing.assert_array_equal(mask.numpy(), np.triu(np.full((4, 4), -np.inf), 1))
