"""Figures of a trained model against formulas and translations of their own; batches; going on; comparisons."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import torch
from typer.testing import CliRunner

from cli import app
from lanit.errors import LanitError
from lanit.labels import Rule
from pipeline.clip.models import ClipModel, load_clip
from pipeline.decoding.grids import to_float, to_uint8
from pipeline.decoding.images import decode_rgb
from pipeline.embedding.embed import embed
from pipeline.evaluation import run_evaluation
from pipeline.evaluation.evaluate import Evaluation, Tools, evaluate_runs
from pipeline.evaluation.figures import DomainFigures, Figure, GuideFigures, Repeats
from pipeline.evaluation.finished import Finished
from pipeline.evaluation.measures import BY_NAME
from pipeline.evaluation.options import EvaluationOptions
from pipeline.evaluation.sample import generator_of, real_labels, torch_generator_of
from pipeline.evaluation.translations import (
    Sources,
    latent_styles,
    reference_styles,
    translate_sources,
)
from pipeline.files import read_json
from pipeline.folders import locked_folder
from pipeline.labelling.label import label
from pipeline.models.bundle import load_bundle, save_bundle
from pipeline.models.run_folder import RESULT_NAME
from pipeline.models.translator import Translator
from pipeline.prompts.prompt_sets import read_prompt_set
from pipeline.sample_world.dataset import write_faces
from pipeline.store.pairs import write_pairs
from pipeline.store.store import Store
from pipeline.store.store_images import StoreImages
from tests.model_builders import random_networks

FACES = 150
OPTIONS = EvaluationOptions(styles=2, sources=13, guide="latent", bootstrap=20, seed=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with faces of the shipped generator's size, and a labelled store of them."""
    folder = tmp_path_factory.mktemp("world")
    write_faces(folder / "faces", FACES, 4040, 64)
    clip = load_clip("sample")
    embed([folder / "faces"], folder / "store", clip)
    label(Store.open(folder / "store"), clip, read_prompt_set("sample-faces"), Rule())
    return folder


@pytest.fixture
def store(world: Path, tmp_path: Path) -> Store:
    """A copy of the store without the faces: nothing of an earlier evaluation is in its cache."""
    shutil.copytree(world / "store", tmp_path / "store", ignore=shutil.ignore_patterns("cache"))
    return Store.open(tmp_path / "store")


@pytest.fixture(scope="module")
def clip() -> ClipModel:
    return load_clip("sample")


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(load_bundle("sample"), torch.device("cpu"))


@pytest.fixture(scope="module")
def measured(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The shipped generator, both guides."""
    root = tmp_path_factory.mktemp("measured") / "store"
    shutil.copytree(world / "store", root, ignore=shutil.ignore_patterns("cache"))
    truth = str(world / "faces" / "truth.csv")
    return evaluate_runs(["sample"], Store.open(root), replace(OPTIONS, guide="both"), Tools(), truth=truth)


def domains_of(result: Evaluation, run: int = 0, guide: int = 0) -> dict[str, DomainFigures]:
    return {each.domain: each for each in result.runs[run].guides[guide].domains}


def drawn_sources(store: Store) -> np.ndarray:
    return np.sort(generator_of(OPTIONS.seed, "sources").choice(np.arange(FACES), OPTIONS.sources, replace=False))


def read_faces(world: Path, store: Store, rows: np.ndarray) -> np.ndarray:
    paths = store.ok_images()["path"].to_pylist()
    return np.stack([decode_rgb(world / "faces" / paths[row]) for row in rows])


def added_by_hand(
    translator: Translator, image: torch.Tensor, own: torch.Tensor, domain: int, codes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One image (1×3×S×S) with a domain added, and its labels: what excludes it goes, what stays keeps its style."""
    labels = own & ~translator.exclusive[domain]
    encoded = translator.networks.style_encoder(image)[0]
    styles = [encoded[n] for n in torch.nonzero(labels).flatten().tolist() if n != domain] + [codes[domain]]
    labels[domain] = True
    return translator.networks.generator(image, torch.stack(styles).mean(dim=0)[None]).clamp(-1, 1), labels


# ---------------------------------------------------------------- translations


def test_translations_are_those_of_lanit_translate_add(world: Path, store: Store, translator: Translator) -> None:
    rows = drawn_sources(store)
    own = torch.from_numpy(store.labels().active[rows])
    sources = Sources(read_faces(world, store, rows), own)
    domain = translator.domains.index("eyeglasses")
    lacking = np.flatnonzero(~own[:, domain].numpy())
    styles = latent_styles(translator, len(rows), 3, seed=1)
    made = np.concatenate(list(translate_sources(translator, sources, lacking, domain, styles)))
    assert made.shape == (len(lacking), 3, 64, 64, 3)
    latents = torch.randn(len(rows) * 3, 16, generator=torch_generator_of(1, "latents")).reshape(len(rows), 3, 16)
    for place, row in enumerate(lacking):
        for style in range(3):
            codes = translator.networks.mapping(latents[row, style][None])[0]
            plain, _ = added_by_hand(translator, to_float(sources.images[[row]]), own[row], domain, codes)
            assert np.abs(made[place, style].astype(int) - to_uint8(plain)[0]).max() <= 1  # rounding of another batch


def test_reference_styles_are_those_of_the_reference(world: Path, store: Store, translator: Translator) -> None:
    rows = drawn_sources(store)
    own = torch.from_numpy(store.labels().active[rows])
    images = read_faces(world, store, rows)
    domain = translator.domains.index("smiling")
    lacking = np.flatnonzero(~own[:, domain].numpy())
    pool = images[own[:, domain].numpy()]
    styles = reference_styles(translator, pool, len(rows), 2, 5, "smiling")
    made = np.concatenate(list(translate_sources(translator, Sources(images, own), lacking, domain, styles)))
    assert len(styles.chosen.unique()) > 1
    for place, row in enumerate(lacking[:3]):
        for style in range(2):
            codes = translator.networks.style_encoder(to_float(pool[styles.chosen[row, style]][None]))[0]
            plain, _ = added_by_hand(translator, to_float(images[[row]]), own[row], domain, codes)
            assert np.abs(made[place, style].astype(int) - to_uint8(plain)[0]).max() <= 1


def test_where_images_are_paired_translations_are_measured_against_the_partner(
    world: Path, store: Store, translator: Translator
) -> None:
    """Of sources that lack a domain, those whose partner has it; nothing is said of other domains."""
    rows, labels = drawn_sources(store), store.labels().active
    domain = translator.domains.index("wearing hat")
    lacking = [row for row in rows if not labels[row, domain]]
    hats = np.flatnonzero(labels[:, domain])[: len(lacking) - 1]  # one source stays without
    write_pairs(store, np.array(lacking[: len(hats)]), hats)
    options = replace(OPTIONS, styles=1)
    result = evaluate_runs(["sample"], store, options, Tools())
    images = read_faces(world, store, rows)
    own = torch.from_numpy(labels[rows])
    chosen = np.flatnonzero(~own[:, domain].numpy())
    styles = latent_styles(translator, len(rows), 1, OPTIONS.seed)
    made = np.concatenate(list(translate_sources(translator, Sources(images, own), chosen, domain, styles)))
    partners = read_faces(world, store, hats)
    apart = [np.abs(made[n, 0].astype(float) - partners[n]).mean() / 255 for n in range(len(hats))]
    assert domains_of(result)["wearing hat"]["partner"].value == pytest.approx(np.mean(apart), rel=1e-6)
    assert all("diversity" not in each.values for each in domains_of(result).values())


def test_a_model_with_one_style_a_domain_makes_one_translation_and_has_no_diversity(
    store: Store, translator: Translator, tmp_path: Path
) -> None:
    sizes = replace(translator.bundle.options, codes="table", code_form="free")
    save_bundle(tmp_path / "table", replace(translator.bundle, options=sizes, networks=random_networks(sizes)))
    result = evaluate_runs([str(tmp_path / "table")], store, replace(OPTIONS, guide="both"), Tools())
    latent, reference = (domains_of(result, guide=guide) for guide in range(2))
    for name, figures in latent.items():
        assert figures.translations == figures.sources
        assert "diversity" not in figures.values
        assert reference[name]["frechet"].value == figures["frechet"].value, "a reference has no style of its own"
    assert not any("diversity" in warning for warning in result.warnings)


# ---------------------------------------------------------------- figures


def test_every_figure_of_a_domain_is_the_plain_formula(
    world: Path, store: Store, translator: Translator, clip: ClipModel, measured: Evaluation
) -> None:
    """Everything anew from the files: translated one by one, embedded as floats, NumPy and SciPy for the rest."""
    rows, name = drawn_sources(store), "wearing hat"
    figures, domain = domains_of(measured)[name], translator.domains.index(name)
    labels = store.labels().active
    own, images = labels[rows], read_faces(world, store, rows)
    lacking = np.flatnonzero(~own[:, domain])
    latents = torch.randn(len(rows) * 2, 16, generator=torch_generator_of(OPTIONS.seed, "latents"))
    made, targets = [], []
    for row in lacking:
        for style in range(2):
            codes = translator.networks.mapping(latents[[2 * row + style]])[0]
            one, target = added_by_hand(translator, to_float(images[[row]]), torch.from_numpy(own[row]), domain, codes)
            made.append(to_uint8(one)[0])
        targets.append(target.numpy())

    def embedded(pictures: np.ndarray) -> np.ndarray:
        return clip.encode_images(to_float(pictures)).double().numpy()

    fake, before = embedded(np.stack(made)), embedded(images[lacking])
    real = store.embeddings()[labels[:, domain]].astype(np.float64)
    assert (figures.real, figures.sources, figures.translations) == (len(real), len(lacking), len(fake))
    assert figures["frechet"].value == pytest.approx(plain_frechet(real, fake), rel=1e-3)
    assert figures["frechet_before"].value == pytest.approx(plain_frechet(real, before), rel=1e-3)
    radius = np.sort(scipy.spatial.distance.cdist(real, real), axis=1)[:, 5]
    inside = scipy.spatial.distance.cdist(real, fake) < radius[:, None]
    assert figures["density"].value == pytest.approx(inside.sum(axis=0).mean() / 5, abs=0.02)
    assert figures["coverage"].value == pytest.approx(inside.any(axis=1).mean(), abs=0.02)
    directions = (translator.bundle.prompts.domains - translator.bundle.prompts.base).double().numpy()
    seen, seen_before = (fake @ directions.T > 0).reshape(len(lacking), 2, -1), before @ directions.T > 0
    assert figures["accuracy"].value == pytest.approx(seen[:, :, domain].mean())
    assert figures["accuracy_before"].value == pytest.approx(seen_before[:, domain].mean())
    agrees = [
        seen[i, style, n] == seen_before[i, n]
        for i, target in enumerate(targets)
        for style in range(2)
        for n in range(len(target))
        if n != domain and target[n] == own[lacking[i], n]
    ]
    assert figures["kept"].value == pytest.approx(np.mean(agrees))
    pairs = fake.reshape(len(lacking), 2, -1)
    assert figures["identity"].value == pytest.approx(np.mean(1 - np.einsum("nkd,nd->nk", pairs, before)), rel=1e-3)
    assert figures["diversity"].value == pytest.approx(np.mean(1 - (pairs[:, 0] * pairs[:, 1]).sum(-1)), rel=0.1)


def plain_frechet(real: np.ndarray, fake: np.ndarray) -> float:
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(one @ other))
    return float(((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(one + other - 2 * root))


def test_the_shipped_generator_beats_doing_nothing(measured: Evaluation) -> None:
    for guide in measured.runs[0].guides:
        accuracy, before = guide.mean("accuracy"), guide.mean("accuracy_before")
        distance, undone = guide.mean("frechet"), guide.mean("frechet_before")
        assert accuracy is not None
        assert before is not None
        assert distance is not None
        assert undone is not None
        assert accuracy.value > 0.8
        assert before.value < 0.1
        assert distance.value < 0.5 * undone.value


def test_the_mean_over_domains_and_its_interval_are_those_of_the_domains(measured: Evaluation) -> None:
    guide = measured.runs[0].guides[0]
    mean = guide.mean("frechet")
    assert mean is not None
    assert mean.ends is not None
    assert mean.value == pytest.approx(np.mean([each["frechet"].value for each in guide.domains]))
    replicates = np.array([each["frechet"].replicates for each in guide.domains])
    assert replicates.shape == (len(guide.domains), OPTIONS.bootstrap)
    np.testing.assert_allclose(mean.replicates, np.nanmean(replicates, axis=0))
    assert mean.ends[0] <= mean.value <= mean.ends[1]
    for each in guide.domains:
        ends = each["accuracy"].ends
        assert ends is not None
        assert 0 <= ends[0] <= each["accuracy"].value <= ends[1] <= 1


def test_figures_do_not_depend_on_the_batch_size(store: Store) -> None:
    found = []
    for batch_size in (1, 7):
        options = replace(OPTIONS, sources=5, match_size=True, batch_size=batch_size)
        found.append(json.dumps(evaluate_runs(["sample"], store, options, Tools()).to_json()))
        shutil.rmtree(store.root / "cache")
    assert found[0] == found[1]


def test_json_holds_the_digits_that_other_machines_find_too(
    store: Store, measured: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of images at once rounds as another machine or number of threads does."""
    monkeypatch.setattr("pipeline.evaluation.sample.batches.__defaults__", (5,))
    other = evaluate_runs(["sample"], store, OPTIONS, Tools())
    first, second = (flat(each.runs[0].guides[0].to_json()) for each in (measured, other))
    assert first.keys() == second.keys()
    apart = [name for name, value in first.items() if value != second[name]]
    assert len(apart) < 0.01 * len(first)  # those that lie where two roundings meet
    for name in apart:
        last = next(10.0 ** -BY_NAME[part].decimals for part in name.split(".") if part in BY_NAME)
        third = 10.0 ** (math.floor(math.log10(max(abs(first[name]), abs(second[name])))) - 2)
        assert abs(second[name] - first[name]) <= 1.001 * max(third, last), name  # one step of the last digit


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(values, dict | list):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        return {name: value for key, each in pairs for name, value in flat(each, f"{prefix}{key}.").items()}
    return {prefix: values} if isinstance(values, int | float) else {}


def test_the_same_evaluation_gives_the_same_json(store: Store) -> None:
    options = replace(OPTIONS, sources=5)
    first = json.dumps(evaluate_runs(["sample"], store, options, Tools()).to_json())
    shutil.rmtree(store.root / "cache")
    assert json.dumps(evaluate_runs(["sample"], store, options, Tools()).to_json()) == first
    assert json.dumps(evaluate_runs(["sample"], store, replace(options, seed=4), Tools()).to_json()) != first


# ---------------------------------------------------------------- going on


def test_an_interrupted_evaluation_goes_on_and_ends_alike(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, sources=5)
    whole = evaluate_runs(["sample"], store, options, Tools()).to_json()
    shutil.rmtree(store.root / "cache")

    def interrupt(done: int, total: int, detail: str = "") -> None:
        if "bangs" in detail:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_runs(["sample"], store, options, Tools(), progress=interrupt)
    (kept,) = (store.root / "cache").glob("evaluation-*.jsonl")
    finished = len(kept.read_text().splitlines()) - 1
    assert 0 < finished < 12
    with kept.open("a") as file:
        file.write('{"guide": "latent", "figures": {"dom')  # as if the process had ended while it wrote
    measured = []
    measure = run_evaluation.measure

    def counting(*arguments: Any) -> DomainFigures:
        measured.append(arguments[4])
        return measure(*arguments)

    monkeypatch.setattr(run_evaluation, "measure", counting)
    seen: list[tuple[int, int]] = []
    again = evaluate_runs(
        ["sample"], store, options, Tools(), progress=lambda done, total, _="": seen.append((done, total))
    )
    assert again.to_json() == whole
    assert len(measured) == 12 - finished
    assert seen[-1][0] == seen[-1][1]
    measured.clear()
    assert evaluate_runs(["sample"], store, options, Tools()).to_json() == whole
    assert not measured


def some_figures(domain: str = "smiling", value: float = 0.25) -> DomainFigures:
    values = {"frechet": Figure(value, (0.1, float("nan"))), "kid": Figure(-0.01, (0.02,), lowest=-np.inf)}
    return DomainFigures(domain, 40, 30, 60, values, Repeats(0.5, 0.0, 0.0, 20, 60))


def test_what_is_kept_comes_back_as_it_was_and_only_while_its_seal_holds(store: Store) -> None:
    Finished(store, {"model": 1}, pytest.fail).add("latent", some_figures())
    other = Finished(store, {"model": 2}, pytest.fail)
    other.add("latent", some_figures(value=0.5))
    kept = Finished(store, {"model": 1}, pytest.fail)
    assert repr(kept.get("latent", "smiling")) == repr(some_figures())
    line = kept.path.read_text()
    damaged = {
        "a digit": line.replace("0.25", "0.35"),
        "no seal": json.dumps({key: value for key, value in json.loads(line).items() if key != "seal"}),
        "of another model": other.path.read_text(),
        "torn": line[: len(line) // 2],
        "no object": "[1]\n7\nnull\n",
        "no text": "\x00\n",
    }
    for how, text in damaged.items():
        kept.path.write_text(text)
        again = Finished(store, {"model": 1}, pytest.fail)
        assert again.get("latent", "smiling") is None, how
        again.add("latent", some_figures())
        assert Finished(store, {"model": 1}, pytest.fail).get("latent", "smiling") is not None, how


def test_two_evaluations_may_keep_their_figures_in_one_file(store: Store) -> None:
    writers = [Finished(store, {}, pytest.fail) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for number, writer in enumerate(writers):
            for n in range(20):
                pool.submit(writer.add, "latent", some_figures(f"{number}-{n}"))
    found = Finished(store, {}, pytest.fail)
    assert all(found.get("latent", f"{number}-{n}") for number in range(2) for n in range(20))


def test_a_store_and_a_run_that_let_nothing_be_written_are_said_so_once_and_measured(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "cache").write_text("stands in the way, as a read-only disk would")
    run, said = run_of(tmp_path / "run", 0), []
    monkeypatch.setattr("pipeline.evaluation.evaluate._WAIT_SECONDS", 0.1)
    with locked_folder(tmp_path / "run", "run"):
        result = evaluate_runs([run], store, replace(OPTIONS, sources=5), Tools(), tell=said.append)
    assert len(result.runs[0].guides[0].domains) == 12
    assert [text.split(":")[0] for text in said] == [
        f"figures are not kept in {store.root / 'cache'}", f"these figures are not in {tmp_path / 'run' / RESULT_NAME}",
    ]  # fmt: skip
    assert not (tmp_path / "run" / RESULT_NAME).exists()


@pytest.mark.gpu
def test_a_gpu_measures_what_the_cpu_does(store: Store, measured: Evaluation) -> None:
    found = evaluate_runs(["sample"], store, replace(OPTIONS, guide="both"), Tools(device=torch.device("cuda")))
    for name, figures in domains_of(found).items():
        expected = domains_of(measured)[name]
        assert figures["frechet"].value == pytest.approx(expected["frechet"].value, rel=0.05)
        assert figures["accuracy"].value == pytest.approx(expected["accuracy"].value, abs=0.05)


@pytest.mark.parametrize("change", [{"seed": 9}, {"styles": 3}, {"match_size": True}, {"bootstrap": 0}])
def test_other_options_do_not_reuse_what_was_measured(store: Store, change: dict[str, Any]) -> None:
    options = replace(OPTIONS, sources=5)
    evaluate_runs(["sample"], store, options, Tools())
    evaluate_runs(["sample"], store, replace(options, **change), Tools())
    assert len(list((store.root / "cache").glob("evaluation-*.jsonl"))) == 2


# ---------------------------------------------------------------- the real side


def test_the_real_side_opens_no_image(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    decode = StoreImages.decode

    def counting(self: StoreImages, row: int) -> np.ndarray:
        read.append(self.name(row))
        return decode(self, row)

    monkeypatch.setattr(StoreImages, "decode", counting)
    evaluate_runs(["sample"], store, replace(OPTIONS, sources=7), Tools())
    assert len(read) == 7


def test_match_size_embeds_the_real_images_at_the_models_size(
    world: Path, store: Store, clip: ClipModel, translator: Translator
) -> None:
    """The faces are drawn at that size already, so both ways must agree; without an image file, only one can work."""
    options = replace(OPTIONS, sources=5)
    first = evaluate_runs(["sample"], store, options, Tools())
    matched = evaluate_runs(["sample"], store, replace(options, match_size=True), Tools())
    for name, figures in domains_of(matched).items():
        assert figures["frechet"].value == pytest.approx(domains_of(first)[name]["frechet"].value, rel=0.05)
    assert matched.real_features != first.real_features


def test_an_unlabelled_store_is_labelled_by_the_models_own_prompts(store: Store, translator: Translator) -> None:
    by_revision = real_labels(store, translator.bundle, None)
    shutil.rmtree(store.root / "labels")
    by_prompts = real_labels(store, translator.bundle, None)
    assert by_revision.origin == "label revision 1"
    assert "own prompts" in by_prompts.origin
    assert (by_prompts.active == by_revision.active).mean() > 0.999  # float16 weights against the same in float32


def test_label_scores_are_those_of_inspect_labels(world: Path, store: Store, measured: Evaluation) -> None:
    from pipeline.inspection.inspect_labels import inspect_labels
    from pipeline.labelling.known_labels import read_truth

    labels = store.labels()
    truth = read_truth(world / "faces" / "truth.csv", labels.domains)
    assert measured.label_scores == inspect_labels(labels, truth=truth).scores


def test_domains_that_nobody_or_everybody_carries_are_skipped_and_named(
    store: Store, translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = real_labels(store, translator.bundle, None)
    active = labels.active.copy()
    active[:, 0], active[:, 1] = True, False
    changed = replace(labels, active=active)
    monkeypatch.setattr("pipeline.evaluation.evaluate.real_labels", lambda *_: changed)
    result = evaluate_runs(["sample"], store, replace(OPTIONS, sources=5), Tools())
    guide = result.runs[0].guides[0]
    assert set(guide.skipped) == set(translator.domains[:2])
    assert len(guide.domains) == len(translator.domains) - 2
    assert sum(translator.domains[0] in warning for warning in result.warnings) == 1


# ---------------------------------------------------------------- several models


def run_of(folder: Path, noise: float) -> str:
    """A run folder with the shipped generator, its weights moved."""
    bundle = load_bundle("sample")
    torch.manual_seed(0)
    for parameter in bundle.networks.generator.decoder.parameters():
        parameter.data += noise * torch.randn_like(parameter)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_bundle(folder / "model", bundle)
    return str(folder)


def test_models_are_compared_on_the_same_images(store: Store, tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a", 0), run_of(tmp_path / "b", 0), run_of(tmp_path / "c", 0.2)]
    result = evaluate_runs(runs, store, replace(OPTIONS, sources=5), Tools())
    same = [each for each in result.differences if each.run == runs[1]]
    assert {(each.value, each.low, each.high) for each in same} == {(0.0, 0.0, 0.0)}
    (worse,) = (each for each in result.differences if each.run == runs[2] and each.name == "frechet")
    assert worse.low is not None
    assert worse.low > 0
    counts = [[(each.domain, each.real, each.sources) for each in run.guides[0].domains] for run in result.runs]
    assert counts[0] == counts[1] == counts[2]
    kept = read_json(tmp_path / "c" / RESULT_NAME)
    assert [run["run"] for run in kept["runs"]] == [runs[2]]
    assert kept["runs"][0] == result.to_json()["runs"][2]
    text = (tmp_path / "c" / RESULT_NAME).read_text()
    (tmp_path / "c" / RESULT_NAME).write_text(text.replace('"real": ', '"real": 1'))
    with pytest.raises(LanitError, match="damaged"):
        read_json(tmp_path / "c" / RESULT_NAME)
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_difference_has_the_interval_of_paired_samples() -> None:
    from pipeline.evaluation.figures import RunFigures, differences

    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, 200)

    def run(name: str, value: float, own: float) -> RunFigures:
        figure = Figure(value, tuple(value + shared + own * rng.normal(0, 1, 200)))
        domain = DomainFigures("d", 1, 1, 1, {"frechet": figure}, Repeats(0, 0, 0, 1, 1))
        return RunFigures(name, "", 32, None, ("d",), 0.5, (GuideFigures("latent", (domain,), {}),))

    (found,) = differences([run("a", 10, 0.01), run("b", 10.5, 0.01)], ["frechet"])
    assert found.value == pytest.approx(0.5)
    assert found.low is not None
    assert found.high is not None
    assert 0.4 < found.low < 0.5 < found.high < 0.6  # though each alone is known to within ±2


def test_what_cannot_be_evaluated_says_what_to_do(store: Store, tmp_path: Path, make_clip: Callable[..., Path]) -> None:
    with pytest.raises(LanitError, match="named twice"):
        evaluate_runs(["sample", "sample"], store, OPTIONS, Tools())
    with pytest.raises(LanitError, match="nothing"):
        evaluate_runs(["sample", str(tmp_path / "nothing")], store, OPTIONS, Tools())
    assert not (store.root / "cache").exists()  # nothing is measured before everything is there
    with pytest.raises(LanitError, match="no label revision 7"):
        evaluate_runs(["sample"], store, OPTIONS, Tools(), revision=7)
    with pytest.raises(LanitError, match="20 bootstrap samples"):
        replace(OPTIONS, bootstrap=3)
    other = tmp_path / "other"
    (tmp_path / "pictures").mkdir()
    write_faces(tmp_path / "pictures" / "faces", 4, 1, 32)
    embed([tmp_path / "pictures"], other, load_clip(str(make_clip())))
    with pytest.raises(LanitError) as refused:
        evaluate_runs(["sample"], Store.open(other), OPTIONS, Tools())
    again = f"lanit embed {tmp_path / 'pictures'} --clip sample --store {other}-2"
    assert refused.value.hint.endswith(again)
    assert CliRunner().invoke(app, shlex.split(again)[1:]).exit_code == 0


def test_a_source_that_is_gone_is_named(world: Path, tmp_path: Path) -> None:
    write_faces(tmp_path / "faces", 30, 7, 32)
    embed([tmp_path / "faces"], tmp_path / "gone", load_clip("sample"))
    image = tmp_path / "faces" / "face-00003.png"
    image.unlink()
    with pytest.raises(LanitError, match=r"face-00003\.png"):
        evaluate_runs(["sample"], Store.open(tmp_path / "gone"), replace(OPTIONS, sources=0), Tools())
    shutil.copy(image.with_name("face-00004.png"), image)
    with pytest.raises(LanitError, match=r"face-00003\.png: it has changed"):
        evaluate_runs(["sample"], Store.open(tmp_path / "gone"), replace(OPTIONS, sources=0), Tools())
