"""The methods, by the names that people type."""

from __future__ import annotations

from lanit.methods.method import Method
from lanit.methods.stargan import Stargan

METHODS: dict[str, type[Method]] = {
    "stargan": Stargan,
}
DEFAULT_METHOD = "stargan"
STATE_GROUPS = tuple(dict.fromkeys(group for method in METHODS.values() for group in method.groups))
"""All that a checkpoint can consist of, whatever its method."""
