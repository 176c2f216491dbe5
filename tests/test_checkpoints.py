"""Checkpoints and bundles come back bit for bit, count only when whole, and never load in part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lanit.errors import LanitError
from lanit.networks import GenerativeNetworks, NetworkOptions
from pipeline.clip.fingerprint import Fingerprint
from pipeline.files import read_json
from pipeline.models.bundle import Bundle, check_prompts, find_bundle, load_bundle, save_bundle
from pipeline.models.run_folder import checkpoints
from pipeline.models.tensor_folders import load_strictly, read_tensors, write_folder
from pipeline.prompts.embed_prompts import with_texts
from pipeline.prompts.learned_prompts import with_context
from pipeline.prompts.prompt_sets import PromptSet
from pipeline.training.checkpoints import latest_checkpoint, newest_whole_checkpoint, read_state, save_checkpoint
from pipeline.training.optimiser_state import load_optimiser, optimiser_tensors

SIZES = NetworkOptions(image_size=32, domains=4, channels=4, max_channels=8, style_dim=6, mapping_width=8)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    prompts = PromptSet(("blond hair", "größer", "hat"), ("a {}.", "one {}"), ("a.", "one"), "test")
    return Bundle(
        networks=GenerativeNetworks(SIZES),
        options=SIZES,
        prompt_set=prompts,
        fingerprint=Fingerprint("tiny", "ab" * 32, {"size": 32}, "gelu", "fp32", 5),
        clip_spec="sample",
        clip_architecture=None,
        exclusive=torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool),
        prompts=with_texts(prompts, torch.randn(3, 5), torch.randn(5)),
        training={"steps": 7, "device": "cpu"},
    )


def test_a_bundle_comes_back_whole(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", bundle)
    loaded = load_bundle(tmp_path)
    assert same(loaded.networks.state_dict(), bundle.networks.state_dict())
    assert torch.equal(loaded.exclusive, bundle.exclusive)
    for name in ("domains", "base", "offsets", "weights"):
        assert torch.equal(getattr(loaded.prompts, name), getattr(bundle.prompts, name))
    for name in ("options", "prompt_set", "fingerprint", "clip_spec", "clip_architecture", "training"):
        assert getattr(loaded, name) == getattr(bundle, name)
    assert not loaded.networks.training
    assert not any(parameter.requires_grad for parameter in loaded.networks.parameters())


def test_half_precision_halves_the_file_and_rounds(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "full", bundle)
    save_bundle(tmp_path / "half", bundle, half=True)
    loaded = load_bundle(tmp_path / "half")
    for name, value in bundle.networks.state_dict().items():
        result = loaded.networks.state_dict()[name]
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, value, rtol=2**-11, atol=1e-7)
    assert torch.equal(loaded.exclusive, bundle.exclusive)
    full, half = (
        sum(t.nbytes for t in load_file(tmp_path / name / "model.safetensors").values()) for name in ("full", "half")
    )
    assert half < 0.51 * full


def test_a_bundle_is_found_by_its_folder_or_its_runs(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "run" / "model", bundle)
    assert find_bundle(tmp_path / "run") == find_bundle(str(tmp_path / "run" / "model")) == tmp_path / "run" / "model"
    with pytest.raises(LanitError, match="no model at"):
        find_bundle(tmp_path / "elsewhere")
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "config.json").write_text("{}")
    with pytest.raises(LanitError, match="no model yet") as caught:
        find_bundle(tmp_path / "young")
    assert "lanit train" in caught.value.hint


HUGE = {"domains": 10**9, "latent_dim": 10**9, "style_dim": 10**12, "mapping_width": 10**8, "image_size": 2**70}


def _spoil(folder: Path, change: str) -> None:
    """As somebody who knows the format, and gives no digests."""
    tensors, document = load_file(folder / "model.safetensors"), read_json(folder / "model.json")
    del document["files"]
    if change == "version":
        document["bundle_version"] = 99
    elif change in HUGE:
        document["networks"][change] = HUGE[change]
    elif change == "clip_spec":
        document["clip_spec"] = 5
    elif change == "steps in words":
        document["training"]["steps"] = "many"
    elif change == "architecture":
        document["networks"]["max_channels"] = 16
    elif change == "unknown size":
        document["networks"]["depth"] = 3
    elif change == "no prompt set":
        del document["prompt_set"]
    elif change == "truncated":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
        return
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
        return
    elif change == "not JSON":
        (folder / "model.json").write_text("{")
        return
    elif change == "stranger":
        tensors["networks.stranger"] = torch.zeros(1)
    else:
        del tensors[change]
    save_file(tensors, folder / "model.safetensors")
    (folder / "model.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("version", "bundle version 99; this lanit reads 1"),
        ("architecture", r"another architecture: .* is \(8, .*\), not \(16, "),
        ("unknown size", "model"),
        ("no prompt set", "model"),
        ("truncated", "cannot read"),
        ("no weights", "cannot read"),
        ("not JSON", "not valid JSON"),
        ("stranger", "stranger is unknown"),
        *((name, r"another architecture|is damaged") for name in HUGE),
        ("clip_spec", "clip_spec is no text"),
        ("steps in words", "steps in training is no number"),
        ("networks.generator.to_rgb.bias", r"generator\.to_rgb\.bias is missing"),
        ("exclusive", "exclusive"),
        ("base_embedding", "base_embedding"),
    ],
)
def test_a_bundle_that_does_not_load_whole_is_an_error(
    bundle: Bundle, tmp_path: Path, change: str, message: str
) -> None:
    save_bundle(tmp_path, bundle)
    _spoil(tmp_path, change)
    with pytest.raises(LanitError, match=message) as caught:
        load_bundle(tmp_path)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_no_memory_is_asked_for_sizes_that_the_weights_do_not_have(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors are made only once all shapes fit."""
    save_bundle(tmp_path, bundle)
    _spoil(tmp_path, "mapping_width")
    made: list[torch.device] = []
    empty = torch.empty

    def watched(*sizes: Any, **options: Any) -> Tensor:
        made.append((result := empty(*sizes, **options)).device)
        return result

    monkeypatch.setattr(torch, "empty", watched)
    with pytest.raises(LanitError, match="another architecture"):
        load_bundle(tmp_path)
    assert {device.type for device in made} == {"meta"}


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) * 2 // 3] ^= 1
    path.write_bytes(data)


def test_a_changed_bit_in_a_model_is_noticed(bundle: Bundle, tmp_path: Path) -> None:
    learned = replace(bundle, prompt_set=with_context(bundle.prompt_set, torch.randn(2, 3, 4)))
    for name, load in (
        ("model.safetensors", load_bundle),
        ("model.json", load_bundle),
        ("prompts.safetensors", lambda folder: check_prompts(folder, load_bundle(folder))),
    ):
        save_bundle(tmp_path / name, learned)
        load(tmp_path / name)
        flip(tmp_path / name / name)
        with pytest.raises(LanitError, match=r"damaged|not valid JSON"):
            load(tmp_path / name)


def test_the_weights_of_another_model_of_the_same_shape_are_noticed(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "own", bundle)
    torch.manual_seed(1)
    save_bundle(tmp_path / "other", replace(bundle, networks=GenerativeNetworks(SIZES)))
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "own" / "model.safetensors")
    with pytest.raises(LanitError, match="damaged, or of another run"):
        load_bundle(tmp_path / "own")


def test_a_model_of_an_older_lanit_without_digests_still_loads(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path, bundle)
    document = read_json(tmp_path / "model.json")
    del document["files"]
    (tmp_path / "model.json").write_text(json.dumps(document))
    assert load_bundle(tmp_path).training == bundle.training


def test_strict_load_names_the_differences_and_changes_nothing() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = {name: value + 1 for name, value in before.items()}
    state["0.weight"] = torch.zeros(1, 2)  # would broadcast
    state["2.weight"] = state.pop("1.weight")
    with pytest.raises(LanitError) as caught:
        load_strictly(module, state, Path("somewhere"))
    for difference in ("1.weight is missing", "2.weight is unknown", "0.weight is (1, 2), not (3, 2)", "somewhere"):
        assert difference in str(caught.value)
    assert same(module.state_dict(), before)
    with pytest.raises(LanitError, match=r"and 1 more\."):
        load_strictly(module, {}, Path("somewhere"))
    load_strictly(module, {name: value + 1 for name, value in before.items()}, Path("somewhere"))
    assert same(module.state_dict(), {name: value + 1 for name, value in before.items()})


def test_checkpoints_come_back_and_only_the_newest_stay(tmp_path: Path) -> None:
    groups = {"networks": {"a": torch.randn(3), "b": torch.arange(4).view(2, 2).T}, "average": {}}
    for step in (0, 5, 10, 1000):
        folder = save_checkpoint(tmp_path, step, groups, {"step": step}, keep=2)
        assert latest_checkpoint(tmp_path) == folder
    assert read_state(folder, None) == {"step": 1000}
    assert same(read_tensors(folder / "networks.safetensors"), groups["networks"])
    assert read_tensors(folder / "average.safetensors") == {}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000010", "step-00001000"]


def test_the_checkpoint_of_the_best_evaluation_stays_until_another_is_better(tmp_path: Path) -> None:
    for step, best in ((0, 0), (5, 5), (10, 5), (15, 5), (20, 20), (25, 20)):
        save_checkpoint(tmp_path, step, {}, {"step": step}, keep=1, besides={best} if best else ())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000020", "step-00000025"]


@pytest.mark.parametrize("change", ["tensors", "state", "missing", "another step", "another run"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path: Path, change: str) -> None:
    for step in (5, 10):
        folder = save_checkpoint(tmp_path, step, {"networks": {"a": torch.randn(9)}}, {"step": step, "run": "x"}, 2)
    warnings: list[str] = []
    assert newest_whole_checkpoint(tmp_path, "x", warnings.append) == (folder, {"step": 10})
    assert warnings == []
    before = folder.with_name("step-00000005")
    if change == "tensors":
        (folder / "networks.safetensors").write_bytes((before / "networks.safetensors").read_bytes())
    elif change == "state":
        flip(folder / "state.json")
    elif change == "missing":
        (folder / "networks.safetensors").unlink()
    elif change == "another step":
        for name in ("networks.safetensors", "state.json"):
            (folder / name).write_bytes((before / name).read_bytes())
    else:
        save_checkpoint(tmp_path, 10, {"networks": {"a": torch.randn(9)}}, {"step": 10, "run": "y"}, 2)
    assert newest_whole_checkpoint(tmp_path, "x", warnings.append) == (before, {"step": 5})
    (warning,) = warnings
    assert "step-00000010" in warning
    assert "going on from step-00000005" in warning
    flip(before / "networks.safetensors")
    with pytest.raises(LanitError, match="step-00000010") as caught:
        newest_whole_checkpoint(tmp_path, "x", warnings.append)
    assert "another --out" in caught.value.hint


def test_a_damaged_later_checkpoint_pushes_out_no_whole_one(tmp_path: Path) -> None:
    for step in (5, 1000, 6):
        save_checkpoint(tmp_path, step, {}, {"step": step}, keep=1 if step == 6 else 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000006", "step-00001000"]


def test_a_file_of_the_user_in_an_old_checkpoint_stays(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path, 5, {}, {"step": 5}, keep=1)
    (first / "notes.txt").write_text("mine")
    save_checkpoint(tmp_path, 6, {}, {"step": 6}, keep=1)
    assert [path.name for path in first.iterdir()] == ["notes.txt"]
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000006"]


def test_a_half_written_folder_never_counts(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    whole = save_checkpoint(tmp_path, 5, {"networks": {"a": torch.ones(1)}}, {"step": 5}, keep=1)
    half = whole.with_name("step-00000009")
    half.mkdir()
    save_file({"a": torch.ones(1)}, half / "networks.safetensors")
    hidden = whole.with_name(".step-00000008.123.tmp")
    hidden.mkdir()
    (hidden / "state.json").write_text("{}")
    assert latest_checkpoint(tmp_path) == whole
    newest = save_checkpoint(tmp_path, 6, {}, {"step": 6}, keep=1)
    assert newest.is_dir(), "a folder that does not count must not push out one that does"
    assert latest_checkpoint(tmp_path) == newest


def test_a_failed_write_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    names = ("a.safetensors", "a.json")
    write_folder(folder, names, ("a.json", {"a": 1}), {"a.safetensors": {"a": torch.ones(2)}})

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.models.tensor_folders.save_file", full)
    with pytest.raises(LanitError, match=r"cannot write .*No space left") as caught:
        write_folder(folder, names, ("a.json", {"a": 2}), {"a.safetensors": {"a": torch.zeros(2)}})
    assert caught.value.hint
    assert torch.equal(read_tensors(folder / "a.safetensors")["a"], torch.ones(2))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _learner(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    parameters = [*module.parameters(), nn.Parameter(torch.ones(1))]  # the last never has a gradient, so never a state
    return module, torch.optim.Adam(parameters, 1e-2, betas=(0.0, 0.99), weight_decay=1e-4, fused=True)


def _learn(module: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad(set_to_none=True)
    module(torch.ones(4, 2)).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("steps", [0, 3])
def test_an_optimiser_goes_on_as_if_it_had_not_stopped(tmp_path: Path, steps: int) -> None:
    module, optimiser = _learner(0)
    for _ in range(steps):
        _learn(module, optimiser)
    folder = save_checkpoint(
        tmp_path, 3, {"networks": module.state_dict(), "average": optimiser_tensors(optimiser)}, {}, keep=1
    )
    other, resumed = _learner(1)
    load_strictly(other, read_tensors(folder / "networks.safetensors"), folder)
    load_optimiser(resumed, read_tensors(folder / "average.safetensors"), folder)
    for _ in range(2):
        _learn(module, optimiser)
        _learn(other, resumed)
    assert same(module.state_dict(), other.state_dict())
    assert same(optimiser_tensors(optimiser), optimiser_tensors(resumed))


@pytest.mark.parametrize("change", ["shape", "missing", "unknown"])
def test_an_optimiser_of_other_parameters_is_refused(change: str) -> None:
    module, optimiser = _learner(0)
    _learn(module, optimiser)
    tensors = optimiser_tensors(optimiser)
    if change == "shape":
        tensors["0.exp_avg"] = torch.zeros(1)
    elif change == "missing":
        del tensors["0.exp_avg_sq"]
    else:
        tensors["9.exp_avg"] = torch.zeros(1)
    with pytest.raises(LanitError):
        load_optimiser(_learner(1)[1], tensors, Path("somewhere"))


def test_bundles_of_equal_models_have_equal_bytes(bundle: Bundle, tmp_path: Path) -> None:
    save_bundle(tmp_path / "a", bundle)
    save_bundle(tmp_path / "b", replace(bundle))
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
