"""What an evaluation measures with: Inception and LPIPS from local files only, judges, folders, warnings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torchvision.transforms.functional import InterpolationMode, resize

from lanit.errors import LanitError, UsageError
from lanit.metrics import clip_mmd, density_coverage, frechet_distance, moments
from pipeline.clip.models import load_clip
from pipeline.evaluation.dinov2 import Dinov2Features, dinov2_weights
from pipeline.evaluation.evaluate import Tools, extractor_of_folders
from pipeline.evaluation.features import ClipFeatures, InceptionFeatures, inception_weights
from pipeline.evaluation.figures import FEW_IMAGES, DomainFigures, Figure, GuideFigures, Repeats, RunFigures
from pipeline.evaluation.folders import evaluate_folders
from pipeline.evaluation.judges import SAMPLE_JUDGE, judge_of
from pipeline.evaluation.measures import BY_NAME
from pipeline.evaluation.measuring import Left, Made, RealSide, Seen, measure
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.page import folders_page
from pipeline.evaluation.perceptual import Perceptual, lpips_of
from pipeline.evaluation.table import show_folders
from pipeline.evaluation.warnings import few_images, published_figures, repeated_images, warnings_of_runs
from pipeline.prompts.prompt_sets import PromptSet, read_prompt_set
from pipeline.sample_world.faces import ATTRIBUTES, draw_faces

ASSETS = Path(__file__).parent.parent / "pipeline" / "assets"
CPU = torch.device("cpu")
OPTIONS = EvaluationOptions(bootstrap=20)


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)


def pictures(count: int, size: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


# ---------------------------------------------------------------- features


def test_clip_features_are_those_of_embed(tmp_path: Path, make_images: Callable[..., Path], tiny_clip: Any) -> None:
    from pipeline.decoding.images import decode_rgb
    from pipeline.embedding.embed import embed
    from pipeline.store.store import Store

    folder = make_images(5)
    embed([folder], tmp_path / "store", tiny_clip)
    store = Store.open(tmp_path / "store")
    features = ClipFeatures(tiny_clip)
    for row, path in enumerate(store.ok_images()["path"].to_pylist()):
        found = features(decode_rgb(folder / path)[None])
        torch.testing.assert_close(found[0], torch.from_numpy(store.embeddings()[row]), rtol=1e-4, atol=1e-5)
    assert features.facts.sha256 == store.fingerprint.weights_sha256


@pytest.fixture
def random_inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """A file of random weights in the form that torch-fidelity publishes, and its own extractor with them."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path / "inception.pth"
    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), path)
    return path, network


def test_inception_features_are_torch_fidelitys_from_a_local_file(
    random_inception: tuple[Path, Any], no_download: None
) -> None:
    path, network = random_inception
    images = pictures(3)
    found = InceptionFeatures(path, CPU)(images)
    (theirs,) = network(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert found.shape == (3, 2048)
    torch.testing.assert_close(found, theirs.float(), rtol=1e-4, atol=1e-6)


def test_inception_without_weights_says_where_to_put_them(tmp_path: Path, no_download: None) -> None:
    with pytest.raises(LanitError, match="--inception-weights") as failure:
        InceptionFeatures(tmp_path / "none.pth", CPU)
    assert "\n" not in str(failure.value)
    assert inception_weights(None).name == "weights-inception-2015-12-05-6726825d.pth"
    pytest.importorskip("torch_fidelity")
    (tmp_path / "torn.pth").write_bytes(b"not weights")
    with pytest.raises(LanitError, match="is not torch-fidelity's Inception"):
        InceptionFeatures(tmp_path / "torn.pth", CPU)


@pytest.mark.parametrize("kind", ["small_patch14", "small_patch14_reg4", "giant_patch14"])
def test_dinov2_features_are_timms_from_a_local_file(kind: str, tmp_path: Path, no_download: None) -> None:
    """A tiny one of each kind, saved as timm does, in a folder, and as a .pth; resized here by torchvision."""
    torch.manual_seed(0)
    width = 192 if "giant" in kind else 64
    sizes = {"img_size": 28, "embed_dim": width, "depth": 2, "num_heads": width // 64, "num_classes": 0}
    network = timm.create_model(f"vit_{kind}_dinov2", **sizes).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    images = pictures(3)
    resized = resize(torch.from_numpy(images).permute(0, 3, 1, 2), [224, 224], InterpolationMode.BICUBIC)
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    whole = timm.create_model(f"vit_{kind}_dinov2", **sizes | {"img_size": 224}).eval()
    whole.load_state_dict(checkpoint_filter_fn(network.state_dict(), whole))
    with torch.no_grad():
        expected = whole.forward_features((resized / 255 - mean) / std)[:, 0]
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    for weights in (tmp_path, tmp_path / "model.safetensors", tmp_path / "theirs.pth"):
        features = Dinov2Features(weights, CPU)
        torch.testing.assert_close(features(images), expected, rtol=0, atol=2e-3)  # a level of 255, here or there
        assert expected.std() > 0.05
        assert features.facts.dimension == width
        assert ("registers" in features.facts.name) == ("reg4" in kind)


def test_dinov2_without_weights_says_what_to_type(tmp_path: Path, no_download: None) -> None:
    with pytest.raises(LanitError, match=r"no DINOv2 weights at .*none\.safetensors") as failure:
        Dinov2Features(tmp_path / "none.safetensors", CPU)
    assert "hf download timm/" in failure.value.hint
    assert "--dinov2-weights dinov2/model.safetensors" in failure.value.hint
    assert dinov2_weights(None).name == "dinov2_vitl14_pretrain.pth"
    save_file({"cls_token": torch.zeros(1, 1, 64)}, tmp_path / "other.safetensors")
    (tmp_path / "torn.pth").write_bytes(b"not weights")
    for name in ("other.safetensors", "torn.pth"):
        with pytest.raises(LanitError, match="is no DINOv2 of timm"):
            Dinov2Features(tmp_path / name, CPU)


def test_cmmd_is_of_clips_features_alone(tiny_clip: Any, tmp_path: Path, capsys: Any) -> None:
    for side, seed in (("real", 0), ("fake", 1)):
        (tmp_path / side).mkdir()
        for number, image in enumerate(pictures(8, seed=seed)):
            Image.fromarray(image).save(tmp_path / side / f"{number}.png")
    real, fake = str(tmp_path / "real"), str(tmp_path / "fake")
    clip = ClipFeatures(tiny_clip)
    result = evaluate_folders(real, fake, clip, OPTIONS)
    sides = [clip(pictures(8, seed=seed)) for seed in (0, 1)]
    assert result.whole["cmmd"].value == pytest.approx(clip_mmd(*sides), rel=1e-3)
    show_folders(result)
    shown = capsys.readouterr().out
    assert "CMMD" in shown
    assert "published figures are of ViT-L-14-336/openai" in shown

    class Others:
        facts = clip.facts
        __call__ = staticmethod(clip)

    without = evaluate_folders(real, fake, Others(), OPTIONS)
    assert without.to_json()["all"]["cmmd"] is None
    show_folders(without)
    assert "CMMD" not in capsys.readouterr().out
    assert "CMMD" not in folders_page(without)


# ---------------------------------------------------------------- LPIPS


@pytest.fixture
def random_alexnet(tmp_path: Path) -> Path:
    """AlexNet's weights are no part of any package; random ones serve to compare implementations."""
    from torchvision.models import alexnet

    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


@pytest.mark.parametrize("size", [32, 65])
def test_lpips_is_that_of_the_lpips_package(random_alexnet: Path, size: int, no_download: None) -> None:
    lpips = pytest.importorskip("lpips")
    pytest.importorskip("torchmetrics")
    theirs = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(random_alexnet, weights_only=True)
    own = {name: value for name, value in theirs.net.state_dict().items()}
    layers = [name for name in state if name.startswith("features")]
    theirs.net.load_state_dict({key: state[name] for key, name in zip(own, layers, strict=True)})
    groups = pictures(4 * 3, size).reshape(4, 3, size, size, 3)
    groups[1, 1] = groups[1, 0]  # twins
    as_floats = torch.from_numpy(groups).permute(0, 1, 4, 2, 3).float() / 127.5 - 1
    with torch.no_grad():
        pairs = [theirs(as_floats[:, i], as_floats[:, j]).flatten() for i, j in ((0, 1), (0, 2), (1, 2))]
    found = Perceptual(random_alexnet, CPU).spread(groups)
    np.testing.assert_allclose(found, torch.stack(pairs).mean(dim=0), rtol=5e-3)
    np.testing.assert_allclose(found, torch.stack(pairs).mean(dim=0), rtol=1e-4)


def test_lpips_does_not_depend_on_how_many_images_pass_at_once(
    random_alexnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchmetrics")
    groups = pictures(5 * 2, 32).reshape(5, 2, 32, 32, 3)
    distance = Perceptual(random_alexnet, CPU)
    whole = distance.spread(groups)
    monkeypatch.setattr("pipeline.evaluation.perceptual._AT_ONCE", 2)
    torch.testing.assert_close(distance.spread(groups), whole, rtol=1e-5, atol=0)


def test_lpips_without_weights_is_left_out_and_a_named_file_must_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_download: None
) -> None:
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    found, reason = lpips_of(None, 64, 10, CPU)
    assert found is None
    assert "--lpips-weights" in reason
    assert lpips_of(None, 64, 1, CPU)[0] is None
    with pytest.raises(LanitError, match="no AlexNet weights"):
        lpips_of(tmp_path / "none.pth", 64, 10, CPU)
    pytest.importorskip("torchmetrics")
    (tmp_path / "torn.pth").write_bytes(b"not weights")
    with pytest.raises(LanitError, match="is not torchvision's AlexNet"):
        lpips_of(tmp_path / "torn.pth", 64, 10, CPU)


# ---------------------------------------------------------------- judges


def test_the_judge_of_the_sample_world_sees_what_was_drawn() -> None:
    prompts = read_prompt_set("sample-faces")
    judge = judge_of(SAMPLE_JUDGE, prompts, CPU, "")
    assert judge is not None
    faces, truth = draw_faces(77, range(40), 64)
    columns = [ATTRIBUTES.index(domain) for domain in prompts.domains]
    assert (judge(faces).numpy() == truth[:, columns]).mean() > 0.97
    assert judge.known.all()


def test_a_judge_that_does_not_load_is_answered_by_its_own_option(tmp_path: Path) -> None:
    with pytest.raises(LanitError) as caught:
        judge_of(str(tmp_path / "away.pt"), PromptSet(("smiling",), ("a {}.",), ("a.",), "one"), CPU, "")
    assert "--judge FILE" in caught.value.hint
    assert "--clip" not in caught.value.hint.replace("--clip-arch", "")


def test_a_judge_knows_only_its_own_domains(tiny_clip_folder: Path) -> None:
    prompts = PromptSet(("smiling", "riding a horse"), ("a face {}.",), ("a face.",), "two")
    judge = judge_of(SAMPLE_JUDGE, prompts, CPU, "")
    assert judge is not None
    assert judge.known.tolist() == [True, False]
    with pytest.raises(LanitError, match="no domain of this model"):
        judge_of(SAMPLE_JUDGE, PromptSet(("cat",), ("a {}.",), ("a.",), "one"), CPU, "")
    assert judge_of(None, prompts, CPU, "") is None


def test_another_clip_judges_by_its_own_adaptive_threshold(tiny_clip_folder: Path, tiny_clip: Any) -> None:
    prompts = PromptSet(("cat", "a small dog"), ("a photo of {}.", "{}."), ("a photo.", "."), "two", (0.5, 0.5))
    judge = judge_of(str(tiny_clip_folder), prompts, CPU, "another")
    assert judge is not None
    images = pictures(6, 32)
    embedded = tiny_clip.encode_images(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1)
    texts = []
    for phrase in ("cat", "a small dog", ""):
        sentences = [t.replace("{}", phrase) for t in prompts.templates] if phrase else list(prompts.bases)
        mean = tiny_clip.encode_texts(sentences).mean(dim=0)
        texts.append(mean / mean.norm())
    similar = embedded @ torch.stack(texts).T
    assert judge(images).tolist() == (similar[:, :2] > similar[:, 2:]).tolist()
    with pytest.raises(LanitError, match="the model learned from"):
        judge_of(str(tiny_clip_folder), prompts, CPU, tiny_clip.fingerprint.weights_sha256)


# ---------------------------------------------------------------- the table of figures


def measured_domain(sources: int = 9, styles: int = 2) -> DomainFigures:
    """Random features of a domain, with everything that can be at hand."""
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, 8, generator=generator), dim=-1)

    def seen(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, 3, generator=generator) > 0.5

    verdicts = Seen(seen(sources), seen(sources, styles), torch.ones(3).bool())
    features, unchanged = rows(sources, styles), torch.tensor([False, True, True]).expand(sources, 3)
    lpips = torch.rand(sources, generator=generator).double()
    near = torch.rand(2, sources, generator=generator).double()
    made = Made(features, rows(sources), features, rows(sources), verdicts, verdicts, unchanged, lpips, *near)
    counts = torch.ones(20, sources, dtype=torch.int64)
    left = Left(torch.tensor([[True, False, True]]), torch.tensor([[False, True, True]]), counts[:, :1])
    return measure(RealSide(rows(30), "d", OPTIONS, of_clip=True), made, left, counts, 0, OPTIONS)


def test_every_figure_that_is_measured_has_its_row_and_every_row_a_figure() -> None:
    found = measured_domain()
    assert set(found.values) == set(BY_NAME)
    assert set(found.to_json()) == {"domain", "real", "sources", "translations", "repeats", *BY_NAME}
    assert repr(DomainFigures.from_stored(json.loads(json.dumps(found.to_stored())))) == repr(found)
    of_one = measured_domain(sources=1)
    assert set(BY_NAME) - set(of_one.values) == {"kid", "frechet_before"}  # a distance from one source is none
    assert of_one.to_json()["kid"] is None


# ---------------------------------------------------------------- folders


def write_pictures(folder: Path, images: np.ndarray, names: list[str]) -> Path:
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / name)
    return folder


def test_two_folders_are_compared_by_the_features_of_their_images(tmp_path: Path, tiny_clip: Any) -> None:
    first, second = pictures(30), pictures(25, seed=1) // 2
    real = write_pictures(tmp_path / "real", first, [f"{n:02d}.png" for n in range(30)])
    fake = write_pictures(tmp_path / "fake", second, [f"x/{n:02d}.png" for n in range(25)])
    (fake / "x" / "broken.png").write_bytes(b"no image")
    result = evaluate_folders(str(real), str(fake), ClipFeatures(tiny_clip), OPTIONS)
    one, other = (ClipFeatures(tiny_clip)(images) for images in (first, second))
    assert result.whole["frechet"].value == pytest.approx(frechet_distance(moments(one), moments(other)), rel=1e-3)
    assert (result.whole["density"].value, result.whole["coverage"].value) == pytest.approx(
        density_coverage(one, other)
    )
    assert (result.whole.real, result.whole.fake, result.failed) == (30, 25, 1)
    assert any("1 of 56 images" in warning for warning in result.warnings)
    assert result.domains == ()  # only one side has subfolders
    again = evaluate_folders(str(real), str(fake), ClipFeatures(tiny_clip), replace(OPTIONS, batch_size=7))
    assert again.whole["frechet"].value == pytest.approx(result.whole["frechet"].value, rel=1e-4)


def test_a_folder_is_at_no_distance_from_itself_under_other_names(tmp_path: Path, tiny_clip: Any) -> None:
    images = pictures(20)
    real = write_pictures(tmp_path / "real", images, [f"{n:02d}.png" for n in range(20)])
    fake = write_pictures(tmp_path / "fake", images[::-1], [f"{n:02d}.png" for n in range(20)])
    whole = evaluate_folders(str(real), str(fake), ClipFeatures(tiny_clip), OPTIONS).whole
    assert whole["frechet"].value == pytest.approx(0, abs=1e-6)
    assert whole["coverage"].value == 1.0


def test_subfolders_of_the_same_names_are_compared_in_pairs(tmp_path: Path, tiny_clip: Any) -> None:
    names = [f"{kind}/{n:02d}.png" for kind in ("cat", "dog") for n in range(10)]
    real = write_pictures(tmp_path / "real", pictures(20), names)
    fake = write_pictures(tmp_path / "fake", pictures(20, seed=2), names)
    result = evaluate_folders(str(real), str(fake), ClipFeatures(tiny_clip), OPTIONS)
    assert [each.name for each in result.domains] == ["cat", "dog"]
    assert result.mean_frechet == pytest.approx(np.mean([each["frechet"].value for each in result.domains]))
    alone = evaluate_folders(str(real / "cat"), str(fake / "cat"), ClipFeatures(tiny_clip), OPTIONS)
    assert alone.whole["frechet"].value == pytest.approx(result.domains[0]["frechet"].value, rel=1e-4)


def colours(count: int, seed: int = 0) -> np.ndarray:
    """Pictures of one colour each, small files."""
    rng = np.random.default_rng(seed)
    return np.broadcast_to(rng.integers(0, 256, (count, 1, 1, 3), np.uint8), (count, 32, 32, 3))


def test_subfolders_of_one_side_alone_are_named_and_the_others_compared(tmp_path: Path, tiny_clip: Any) -> None:
    def folder(name: str, kinds: dict[str, int], seed: int) -> str:
        names = [f"{kind}/{n}.png" for kind, count in kinds.items() for n in range(count)]
        return str(write_pictures(tmp_path / name, colours(len(names), seed), names))

    real = folder("real", {"cat": 8, "dog": 8, "owl": 8}, 0)
    fake = folder("fake", {"cat": 8, "owl": 3, "Dog": 8}, 1)
    result = evaluate_folders(real, fake, ClipFeatures(tiny_clip), OPTIONS)
    assert [each.name for each in result.domains] == ["cat"]
    assert result.to_json()["subfolders"] == {
        "both": ("cat", "owl"), "real": ("dog",), "fake": ("Dog",),
        "skipped": {"owl": "3 images on one side, and 6 are needed"},
    }  # fmt: skip
    (few,) = (text for text in result.warnings if "'owl'" in text)
    assert "3 images on one side" in few
    (alone,) = (text for text in result.warnings if "2 of 4 subfolders" in text)
    assert "real: 'dog'" in alone
    assert "compared: 'Dog'" in alone
    other = evaluate_folders(folder("x", {"a": 7, "b": 7}, 2), fake, ClipFeatures(tiny_clip), OPTIONS)
    assert other.domains == ()
    assert any("no subfolder is on both sides" in text and "no mFID" in text for text in other.warnings)
    (tmp_path / "flat").mkdir()
    for path in (tmp_path / "real" / "cat").iterdir():
        shutil.copy(path, tmp_path / "flat" / path.name)
    flat = str(tmp_path / "flat")
    assert not any(
        "subfolder" in text for text in evaluate_folders(flat, flat, ClipFeatures(tiny_clip), OPTIONS).warnings
    )


def test_copies_and_twins_are_warned_of_and_counted(tmp_path: Path, tiny_clip: Any) -> None:
    images = colours(12)
    real = write_pictures(tmp_path / "real", images, [f"{n:02d}.png" for n in range(12)])
    few = write_pictures(tmp_path / "few", np.concatenate([images[:3]] * 4), [f"{n:02d}.png" for n in range(12)])
    result = evaluate_folders(str(real), str(few), ClipFeatures(tiny_clip), OPTIONS)
    assert result.whole.repeats.to_json() == {
        "real": 0.0, "made": 1.0, "across": 1.0, "different_real": 12, "different_made": 3,
    }  # fmt: skip
    for said in ("100% of the images compared with them have a twin", "100% of the images compared with them are alm",
                 "only 3 different images compared with them"):  # fmt: skip
        assert any(text.startswith(said) for text in result.warnings), result.warnings
    same = evaluate_folders(str(real), str(real), ClipFeatures(tiny_clip), OPTIONS)
    assert same.whole["kid"].value < 0
    assert any("almost the same as real images" in text for text in same.warnings)
    assert not any("twin" in text for text in same.warnings)
    other = write_pictures(tmp_path / "other", pictures(12, 32, seed=4), [f"{n:02d}.png" for n in range(12)])
    told = evaluate_folders(str(real), str(other), ClipFeatures(tiny_clip), OPTIONS).warnings
    assert not any("twin" in text or "almost" in text or "different" in text for text in told)


def test_twins_matter_from_a_hundredth_of_the_images_on() -> None:
    def told(real: float, made: float = 0.0, across: float = 0.0) -> list[str]:
        return repeated_images([Repeats(real, made, across, 600, 600)], ("real images", "translations"), 5)

    assert told(0.009) == []
    assert "1% of the real images" in told(0.01)[0]
    assert "2% of the translations have a twin" in told(0.0, 0.02)[0]
    assert "30% of the translations are almost the same as real" in told(0.0, 0.0, 0.3)[0]
    several = [Repeats(share, 0.0, 0.0, 600, 600) for share in (0.0, 0.25)]
    assert repeated_images(several, ("real images", "made"), 5)[0].startswith("0% to 25% of the real images")


def test_too_small_a_folder_is_named(tmp_path: Path, tiny_clip: Any) -> None:
    real = write_pictures(tmp_path / "real", pictures(9), [f"{n}.png" for n in range(9)])
    fake = write_pictures(tmp_path / "fake", pictures(3), [f"{n}.png" for n in range(3)])
    with pytest.raises(LanitError, match="fake has 3 images"):
        evaluate_folders(str(real), str(fake), ClipFeatures(tiny_clip), OPTIONS)
    with pytest.raises(LanitError):
        evaluate_folders(str(real), str(tmp_path / "nothing"), ClipFeatures(tiny_clip), OPTIONS)


def test_folders_are_compared_by_the_stores_clip_unless_one_is_named(
    tmp_path: Path, make_images: Callable[..., Path], tiny_clip_folder: Path, tiny_clip: Any
) -> None:
    from pipeline.embedding.embed import embed

    embed([make_images(2)], tmp_path / "store", tiny_clip)
    by_store = extractor_of_folders(Tools(), tmp_path / "store")
    named = extractor_of_folders(Tools(clip="sample"), tmp_path / "store")
    assert by_store.facts.sha256 == tiny_clip.fingerprint.weights_sha256
    assert named.facts.sha256 == load_clip("sample").fingerprint.weights_sha256
    shutil.rmtree(tmp_path / "store")


# ---------------------------------------------------------------- warnings


def test_few_images_are_warned_of_below_2048_on_either_side() -> None:
    assert FEW_IMAGES == 2048
    assert few_images([(2048, 5000)], ("real", "made")) == []
    assert "2,047 to 5,000 real" in few_images([(5000, 9000), (2047, 9000)], ("real", "made"))[0]
    assert "100 to 5,000 made" in few_images([(5000, 100), (3000, 5000)], ("real", "made"))[0]


def a_run(name: str, size: int = 32, domains: tuple[str, ...] = ("d",)) -> RunFigures:
    figures = DomainFigures("d", 3000, 300, 3000, {"frechet": Figure(0.5)}, Repeats(0, 0, 0, 3000, 3000))
    return RunFigures(name, "", size, None, domains, 0.5, (GuideFigures("latent", (figures,), {}),))


def test_models_that_were_not_measured_alike_are_warned_of() -> None:
    alike = warnings_of_runs([a_run("a"), a_run("b")], ["r", "r"], judged=True, neighbours=5)
    assert alike == []
    assert any("--judge" in warning for warning in warnings_of_runs([a_run("a")], ["r"], judged=False, neighbours=5))
    assert any(
        "64" in warning
        for warning in warnings_of_runs([a_run("a"), a_run("b", 64)], ["r", "r"], judged=True, neighbours=5)
    )
    others = warnings_of_runs([a_run("a"), a_run("b", domains=("d", "e"))], ["r", "other"], judged=True, neighbours=5)
    assert len(others) == 2
    (blur,) = warnings_of_runs([a_run("a", 32), a_run("b", 32)], ["r", "r"], judged=True, neighbours=5, whole_at=64)
    assert "--match-size" in blur
    assert warnings_of_runs([a_run("a", 64)], ["r"], judged=True, neighbours=5, whole_at=64) == []


def test_published_figures_are_of_built_in_prompt_sets_and_never_without_a_caveat() -> None:
    document = json.loads((ASSETS / "published-figures.json").read_text(encoding="utf-8"))
    assert set(document["sets"]) <= set(json.loads((ASSETS / "prompt-sets.json").read_text(encoding="utf-8"))["sets"])
    for name, printed in document["sets"].items():
        found = published_figures(name)
        assert found is not None
        assert found[0] == printed
        assert "not comparable" in found[1]
    assert published_figures("sample-faces") is None


def test_too_small_a_bootstrap_is_refused() -> None:
    with pytest.raises(UsageError, match="--bootstrap 100"):
        EvaluationOptions(bootstrap=5)
    assert EvaluationOptions(bootstrap=0).bootstrap == 0
