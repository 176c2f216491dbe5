"""Inputs that a store knows and a run does not read, or finds nothing in: kept, away, forgotten."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from lanit.errors import LanitError, UsageError
from pipeline.embedding.parts import PartWriter
from pipeline.inputs.opening import find_sources, open_source
from pipeline.inputs.places import Input, NoImagesError
from pipeline.store.schemas import SourceEntry

_NAMED = 3  # inputs that a message names


@dataclass
class StoredInputs:
    """What cannot be listed is not gone: its rows stay, or the run is refused.

    origins: inputs of the run; those that are to be read because a damaged part had rows of them come to it.
    kept: the others, whose rows stay, but for those to be forgotten. away: rows that stay of what cannot be found or
    listed now.
    """

    writer: PartWriter
    origins: list[Input]
    forget: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list)
    kept: list[SourceEntry] = field(default_factory=list)
    away: int = 0

    @property
    def kept_sources(self) -> list[str]:
        return [entry.source for entry in self.kept]

    def settle(self) -> None:
        """Find out what is kept. Raises LanitError where rows would be lost that were in a damaged part."""
        entries = self.writer.old_sources()
        gone = self._forgotten([entry.source for entry in entries]) | {origin.source for origin in self.origins}
        others = [entry for entry in entries if entry.source not in gone]
        away = [entry.source for entry in others if not _is_there(entry)]
        for entry in others:
            if entry.source not in self.writer.lost:
                self.kept.append(entry)
            elif entry.source not in away:
                self.origins.append(open_source(entry.source, entry.image_column))
            else:
                raise LanitError(
                    f"{self.writer.damages[0]}, and {entry.source}, of which it may have images, cannot be found now",
                    f"Bring it back, or run: {self._command([entry.source])}",
                )
        if away:
            rows = sum(map(self.writer.catalogue.known, away))
            self.away += rows
            names = ", ".join(away[:_NAMED]) + (f" and {len(away) - _NAMED:,} more" if len(away) > _NAMED else "")
            self.warnings.append(
                f"{names}: cannot be found now; {rows:,} images of it stay in the store. "
                f"If it is gone for good, run: {self._command(away[:_NAMED])}"
            )

    def find(self, origin: Input) -> tuple[int, int]:
        """List an input of the run. Returns how many images it has, and how many names came twice.

        Raises LanitError where it has none any more, as an empty mount point has, or where rows would be lost.
        """
        catalogue = self.writer.catalogue
        known = catalogue.known(origin.source)
        try:
            found, repeated = catalogue.find(origin)
        except NoImagesError as error:
            if not known:
                raise
            raise self._emptied(origin, known) from error
        if known and not found:
            raise self._emptied(origin, known)
        if origin.unlisted:
            self._hold(origin)
        return found, repeated

    def _hold(self, origin: Input) -> None:
        held = self.writer.catalogue.hold(origin.source, origin.unlisted)
        if origin.source in self.writer.lost:
            raise LanitError(
                f"{self.writer.damages[0]}, and not all of {origin.source}, of which it may have images, can be listed "
                f"now: {(*origin.warnings, 'a link leads nowhere')[0]}",
                "Make it whole again, then run the same command.",
            )
        if held:
            self.away += held
            below = ", ".join(filter(None, origin.unlisted[:_NAMED]))
            where = f"{origin.source} (below {below})" if below else origin.source
            self.warnings.append(f"{held:,} images of {where} cannot be listed now and stay in the store as they were")

    def _forgotten(self, sources: list[str]) -> set[str]:
        """The inputs that ``--forget`` names. One that the store has not is a warning: a command may be given again."""
        found: set[str] = set()
        for text in self.forget:
            named = find_sources(text, sources)
            if any(origin.source in named for origin in self.origins):
                raise UsageError(f"{text} is both an input and to be forgotten", "Leave one of the two out.")
            if not named:
                has = ", ".join(sources[:_NAMED]) or "none"
                self.warnings.append(f"the store has no input {text} to forget; it has {has}")
            found.update(named)
        return found

    def _emptied(self, origin: Input, known: int) -> LanitError:
        others = [other.source for other in self.origins if other is not origin]
        entries = [entry for entry in self.writer.old_sources() if entry.source != origin.source]
        others += [entry.source for entry in entries if _is_there(entry)]
        reason = origin.warnings[0] if origin.unlisted else "perhaps its disk is not mounted"
        return LanitError(
            f"there are no images in {origin.source}, and the store has {known:,} of it: {reason}",
            f"If they are gone for good, run: {self._command([origin.source], others or ['OTHER'])}",
        )

    def _command(self, forget: Sequence[str], inputs: Sequence[str] | None = None) -> str:
        """What to type to forget some inputs. inputs: to be embedded, those of this run if left out."""
        given = [origin.source for origin in self.origins] if inputs is None else inputs
        words = [word for source in forget for word in ("--forget", source)]
        return shlex.join(["lanit", "embed", *given[:_NAMED], "--store", str(self.writer.root), *words])


def _is_there(entry: SourceEntry) -> bool:
    """Whether an input can be found now."""
    try:
        return open_source(entry.source, entry.image_column).exists()
    except LanitError:
        return False
