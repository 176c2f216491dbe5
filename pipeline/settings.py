"""From the options of a command to what several rooms together make of them: clusters, NAME=VALUE settings, a run."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanit.errors import UsageError

if TYPE_CHECKING:
    from pipeline.clip.models import ClipModel
    from pipeline.computing.ray_cluster import Workforce
    from pipeline.embedding.embed import EmbedOptions, EngineMaker
    from pipeline.labelling.label_decisions import Decider
    from pipeline.store.store import Store
    from pipeline.training.logs import LogName
    from pipeline.training.train_options import TrainOptions
    from pipeline.training.training import TrainReport


@contextlib.contextmanager
def workforce_of(engine: str, address: str | None, actors: int | None, device: str) -> Iterator[Workforce | None]:
    """The cluster of ``--engine ray --address --actors`` for as long as the block lasts; none for this machine alone.

    Raises UsageError where the options contradict, LanitError where the cluster cannot be had.
    """
    if engine == "local":
        if address is not None or actors is not None:
            name = "--actors" if address is None else "--address"
            raise UsageError(f"{name} is of a Ray cluster", "Add --engine ray.")
        yield None
        return
    from pipeline.computing.ray_cluster import workforce

    with workforce(address, actors, device) as force:
        yield force


def engine_maker(force: Workforce | None, clip: ClipModel, options: EmbedOptions) -> EngineMaker | None:
    """What embeds on a cluster; none for this machine alone."""
    if force is None:
        return None
    from pipeline.embedding.ray_embed import ray_engine

    return ray_engine(clip, options, force)


def decider_of(force: Workforce | None, remark: Callable[[str], None]) -> Decider | None:
    """What labels on a cluster; none for this machine alone. remark: called with what a person should know."""
    if force is None:
        return None
    from pipeline.labelling.ray_label import ray_decider

    return ray_decider(force, remark)


def merge_settings(defaults: Mapping[str, Any], texts: Sequence[str], named: dict[str, Any]) -> dict[str, Any]:
    """``--set`` texts and options of their own (None: not given) as one dict; UsageError where both name one."""
    settings = parse_settings(defaults, texts)
    given = {name: value for name, value in named.items() if value is not None}
    for name in settings:
        if name in given:
            raise UsageError(f"--{name.replace('_', '-')} and --set {name} are both given", "Keep one of them.")
    return settings | given


def parse_settings(defaults: Mapping[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Values by name, each of the type of its default (int, float or str).

    Raises UsageError for a text without "=", an unknown name, a name given twice, or a value of another type.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        name = name.replace("-", "_")
        if not equals:
            raise UsageError(f"--set '{text}' is not NAME=VALUE", "Write it like --set domain=1.0")
        if name not in defaults:
            names = difflib.get_close_matches(name, defaults, n=3, cutoff=0.5) or list(defaults)
            raise UsageError(f"--set: there is no option '{name}'", f"Choose one of {', '.join(names)}.")
        if name in found:
            raise UsageError(f"--set {name} is given twice", "Keep one of them.")
        kind = type(defaults[name])
        try:
            found[name] = kind(value)
        except ValueError as error:
            kinds = {int: "a whole number", float: "a number"}
            raise UsageError(f"--set {name}={value}: not {kinds[kind]}", f"The default is {defaults[name]}.") from error
    return found


def train_on(
    store: Store,
    out: Path,
    options: TrainOptions,
    clip: str | None,
    clip_architecture: str | None,
    revision: int | None,
    device: str,
    log: LogName | None = None,
) -> TrainReport:
    """Train the run ``out``, having said on what; the first process also decodes the images at training size before.

    clip, clip_architecture: the store's unless named. See :func:`pipeline.training.training.train`.
    """
    from lanit.methods.clusters import ClusterOptions
    from pipeline.computing.devices import pick_device
    from pipeline.inspection.inspect_labels import inspect_labels, people_of
    from pipeline.inspection.terminal_tables import show_coverage
    from pipeline.showing import console
    from pipeline.store.image_cache import open_sized_images
    from pipeline.store.store_clip import clip_of
    from pipeline.training.processes import launched_rank
    from pipeline.training.terminal_tables import show_options
    from pipeline.training.training import train

    chosen = str(pick_device(device))
    model = clip_of(store, clip, clip_architecture, chosen)
    show_options(f"run {out} on {chosen}", options.to_json(), chosen)
    if isinstance(options.settings, ClusterOptions):
        _tell_of_people(store, revision)
    else:
        labels = store.labels_to_train(revision)
        show_coverage(inspect_labels(labels, people=people_of(store, labels)))
    if launched_rank() == 0:
        with console.progress("decoding at training size") as advance:
            open_sized_images(store, options.size, options.cache_gb, advance, console.warn)
    with console.progress("training", "steps") as advance:
        return train(store, out, options, model, revision=revision, device=device, progress=advance, log=log)


def _tell_of_people(store: Store, revision: int | None) -> None:
    """Of a method that needs no labels: that it would keep to those that people gave."""
    from pipeline.showing import console

    newest = store.newest_labels() if revision is None and store.revisions() else None
    if newest is not None and newest.has_human:
        console.note(
            f"people labelled images in revision {newest.number}: add --revision {newest.number} to make its phrases "
            "the first clusters, and keep to what people said"
        )
