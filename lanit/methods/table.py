"""The methods, by the names that people type, and the networks that a model can consist of."""

from __future__ import annotations

from lanit.content_networks import ContentNetworks, ContentSizes
from lanit.guides import GuidedNetworks, GuideSizes
from lanit.methods.content import Content
from lanit.methods.method import Method
from lanit.methods.one_shot import OneShot
from lanit.methods.stargan import Stargan
from lanit.methods.style_aware import StyleAware
from lanit.methods.tunit import Tunit
from lanit.networks import GenerativeNetworks, NetworkOptions
from lanit.one_shot_networks import OneShotNetworks, OneShotSizes

METHODS: dict[str, type[Method]] = {
    "stargan": Stargan,
    "tunit": Tunit,
    "style-aware": StyleAware,
    "content": Content,
    "one-shot": OneShot,
}
DEFAULT_METHOD = "stargan"
STATE_GROUPS = tuple(dict.fromkeys(group for method in METHODS.values() for group in method.groups))
"""All that a checkpoint can consist of, whatever its method."""

NETWORKS: dict[str, tuple[type[NetworkOptions], type[GenerativeNetworks]]] = {
    "stargan": (NetworkOptions, GenerativeNetworks),
    "guided": (GuideSizes, GuidedNetworks),
    "content": (ContentSizes, ContentNetworks),
    "one-shot": (OneShotSizes, OneShotNetworks),
}
"""What a saved model can consist of: sizes, and networks made of them. A method with networks of its own adds a line,
and its sizes are what its options give as ``network_options``."""


def networks_name(options: NetworkOptions) -> str:
    """The name in ``NETWORKS`` of the networks of these sizes."""
    return next(name for name, (sizes, _) in NETWORKS.items() if sizes is type(options))
