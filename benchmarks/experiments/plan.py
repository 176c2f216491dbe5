"""How large the experiments are: what one work folder holds, and refuses to mix with another size."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lanit.errors import LanitError
from pipeline.files import read_json, write_json

PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class Plan:
    """Sizes that every arm shares.

    work: the folder of everything. sample_seconds to celeba_seconds: processor time of training an arm.
    images: faces to draw and train on. held_out: drawn faces to evaluate on. translations: for each domain. clip_steps,
    judge_epochs: of the photographs' own models.
    """

    work: Path
    sample_seconds: int = 300
    animals_seconds: int = 300
    animals14_seconds: int = 900
    celeba_seconds: int = 900
    images: int = 4000
    held_out: int = 4000
    translations: int = 500
    clip_steps: int = 2000
    judge_epochs: int = 12

    def seconds(self, world: str) -> int:
        """Processor time of training an arm in a world."""
        seconds: int = getattr(self, f"{world}_seconds")
        return seconds

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "work"}


def keep_plan(plan: Plan) -> None:
    """Note ``plan`` in its work folder. Raises LanitError where that folder was begun at another size."""
    path = plan.work / PLAN_NAME
    if not path.is_file():
        write_json(path, plan.to_json())
        return
    before = read_json(path)
    for name, value in plan.to_json().items():
        if before.get(name) != value:
            raise LanitError(
                f"the experiments in {plan.work} were begun with {name} {before.get(name)}, not {value}",
                "Repeat their options to continue them, or start others with another --work.",
            )
