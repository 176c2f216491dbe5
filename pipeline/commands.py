"""Commands of lanit as messages write them: what they say can be typed as it stands."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

DEFAULT_STORE = Path("manifests")
STORE_VARIABLE = "LANIT_STORE"
"""Of the environment: the store of commands that are given none."""


def store_option(root: Path) -> str:
    """What names the store ``root`` after a command: `` --store DIR``, or nothing where it is the default."""
    return "" if root == Path(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE) else f" --store {shlex.quote(str(root))}"
