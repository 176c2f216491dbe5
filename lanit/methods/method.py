"""What a training run, and all that comes after it, needs of a method: the seam between the two.

A method ends in labels and in G, E_S and E_M (:class:`lanit.networks.GenerativeNetworks`); whatever uses the model
afterwards knows no more of it. A new one is a module beside this, with its options, and a line in
:mod:`lanit.methods.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from lanit.ema import Average
from lanit.labels import EmbeddedPrompts
from lanit.networks import GenerativeNetworks, NetworkOptions
from lanit.objectives import Batch, Parts
from lanit.prompts import PromptLearner
from lanit.ranks import Draws
from lanit.schedules import ema_decay

_Learners = TypeVar("_Learners", bound=nn.Module)
_Generative = TypeVar("_Generative", bound=GenerativeNetworks)


@dataclass(frozen=True)
class Moment:
    """Where a run stands. step: the iteration that comes; planned: all of them, 0 while not yet known; learning:
    whether prompts are being learned now, as in phase 2 until they are settled (METHOD 13); of a method that finds
    clusters, whether the generator is, as after the warm-up."""

    step: int
    planned: int
    learning: bool


@dataclass(frozen=True)
class Setting:
    """What a method is built in. image_size: S, pixels; domains: N, the number of prompts. bf16: whether the networks
    run in bfloat16. encode: CLIP's image tower, see :class:`lanit.objectives.Guidance`. prompts: as written. learner:
    of the prompts, none where they are not to be learned. ema: decay of the averages at the end. paired: whether images
    have partners that they are to become. sample: of the images that are learned from, as many as asked for at most,
    spread over all: float32 (n×3×S×S) in [-1, 1], and their labels, bool (n×N), on the device. example: the image of
    :class:`OneImage`, float32 (3×S×S) in [-1, 1]; none for other methods. inner: networks for this size or half of it
    to begin with (:mod:`lanit.growing`), of a run that begins.
    """

    image_size: int
    domains: int
    device: torch.device
    bf16: bool
    encode: Callable[[Tensor], Tensor]
    prompts: EmbeddedPrompts
    learner: PromptLearner | None
    ema: float
    paired: bool
    sample: Callable[[int], tuple[Tensor, Tensor]]
    example: Tensor | None = None
    inner: Mapping[str, Tensor] | None = None


class Options(Protocol):
    """A method's own settings: a frozen dataclass, all of whose fields have defaults; see :mod:`lanit.options`."""

    def __init__(self) -> None: ...

    def network_options(self, image_size: int, domains: int) -> NetworkOptions:
        """Sizes of the networks for images of S pixels and N prompts."""


@dataclass(frozen=True)
class OneWord:
    """Base of the settings of a method that learns one word: its model has that domain, and its absence as ∅.

    present: the word, as the labels have it. channels, max_channels: as in :class:`lanit.networks.NetworkOptions`.
    learning_rate: of Adam, for all networks. r1, r1_every: of the discriminator of images, if there is one.
    """

    present: str = ""
    channels: int = 0
    max_channels: int = 512
    learning_rate: float = 2e-4
    r1: float = 1.0
    r1_every: int = 8


@dataclass(frozen=True)
class OneImage(OneWord):
    """Base of the settings of a method that learns a word and one image of something else.

    example: the image, a file.
    """

    example: str = ""


class Method(Protocol):
    """A way to learn, built under torch's global seed.

    options: the class of its settings. groups: names of all that :meth:`state` can hold.
    """

    options: ClassVar[type[Options]]
    groups: ClassVar[tuple[str, ...]]

    def __init__(self, options: Any, setting: Setting) -> None:
        """options: of the class above."""

    @property
    def networks(self) -> nn.Module:
        """All that learns from images."""

    @property
    def averaged(self) -> GenerativeNetworks:
        """What is saved and translated with, frozen."""

    def step(self, batch: Batch, moment: Moment, draws: Draws) -> Parts:
        """One iteration, averages included. Returns losses by name, on the device."""

    def state(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """All that a run must put back to go on bit for bit."""

    def compile(self) -> None:
        """Let torch compile what gains by it; called once, after the state was put back."""

    @property
    def learns_prompts(self) -> bool:
        """Whether there are prompts to learn in phase 2."""

    def context(self) -> Tensor | None:
        """What the average has learned of the prompts, (M×L×w); none where they are not learned."""

    def prompts(self, context: Tensor | None) -> EmbeddedPrompts:
        """The prompts with a context that they learned, without a graph; as written without one."""

    def settle(self, context: Tensor | None) -> None:
        """Learn the prompts no more: they stay as ``context`` has them, as written without one. Called where
        ``learns_prompts``, and again on the state that was put back."""


class WithoutPrompts(Generic[_Learners, _Generative]):
    """What a method leaves out of :class:`Method` that learns no prompts, and what all such do alike.

    optimisers: names of those that a class has; each makes them as it is built.
    """

    groups: ClassVar[tuple[str, ...]]
    learns_prompts = False

    def __init_subclass__(cls, *, optimisers: tuple[str, ...]) -> None:
        cls.groups = ("networks", "average", *(f"{name}_optimiser" for name in optimisers))

    def __init__(self, setting: Setting, networks: _Learners, generative: _Generative) -> None:
        """networks: all that learns; generative: those of them that make images, which are averaged."""
        self._setting, self._generative = setting, generative
        self.networks = networks.to(setting.device)
        self._average = Average(generative)
        self.averaged = self._average.module
        self._optimisers: dict[str, torch.optim.Optimizer] = {}

    def _follow(self, moment: Moment) -> None:
        """The average takes in what was learned in the step of this moment."""
        self._average.update(self._generative, ema_decay(self._setting.ema, moment.step))

    def state(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        optimisers = {f"{name}_optimiser": each for name, each in self._optimisers.items()}
        return {"networks": self.networks, "average": self.averaged, **optimisers}

    def compile(self) -> None:
        """What changes too often gains nothing."""

    def context(self) -> Tensor | None:
        return None

    def prompts(self, context: Tensor | None) -> EmbeddedPrompts:
        return self._setting.prompts

    def settle(self, context: Tensor | None) -> None:
        raise AssertionError("there are no prompts to learn")
