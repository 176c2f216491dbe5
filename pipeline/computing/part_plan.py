"""What a long run is to do, in the order of its table: parts, which are written whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Item(Protocol):
    """One image of a run, and what becomes of it.

    to_do: whether it is to be read; it stays so when it is done, which the fields of the stage tell.
    """

    @property
    def source(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def to_do(self) -> bool: ...


AnyItem = TypeVar("AnyItem", bound=Item)


@dataclass(frozen=True)
class PartPlan(Generic[AnyItem]):
    """The images of a run, a part at a time: as often as wanted, also in other processes of this machine.

    images: gives the same, new objects, whenever it is gone through. part_rows: images of a part, which is all or
    nothing when the run is killed. announce: called with the images to be done before any of them is handed out.
    """

    images: Iterable[AnyItem]
    part_rows: int
    announce: Callable[[Sequence[AnyItem]], None] | None = None

    def __iter__(self) -> Iterator[list[AnyItem]]:
        images = iter(self.images)
        while part := list(islice(images, self.part_rows)):
            yield part

    def handed_out(self) -> Iterator[list[AnyItem]]:
        """The parts, announced."""
        for part in self:
            todo = [image for image in part if image.to_do]
            if todo and self.announce is not None:
                self.announce(todo)
            yield part

    def tasks(self, size: int) -> Iterator[list[AnyItem]]:
        """What is to be done, announced, ``size`` images at a time; a task ends with its part."""
        return (task for part in self.handed_out() for task in tasks_of(part, size))


def tasks_of(part: Sequence[AnyItem], size: int) -> Iterator[list[AnyItem]]:
    """The images of a part that are to be done, ``size`` of them at a time."""
    todo = [image for image in part if image.to_do]
    return (todo[start : start + size] for start in range(0, len(todo), size))
