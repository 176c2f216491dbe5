"""One image file, given by its name."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.inputs.places import BaseInput, NoImagesError, Place
from pipeline.inputs.storage import file_name
from pipeline.inputs.storages import storage_of


class ImageFile(BaseInput):
    """An :class:`pipeline.inputs.places.Input` of one image, whose path is the name of the file."""

    def places(self) -> Iterator[Place]:
        if not self.exists():
            raise NoImagesError(f"there is no file {self.source}", "Check the path.")
        yield Place(self.source, file_name(self.source), None, *storage_of(self.source).stat(self.source))

    def read(self, path: str, offset: int | None, size: int | None) -> bytes:
        return storage_of(self.source).read(self.source)

    def exists(self) -> bool:
        return storage_of(self.source).kind(self.source) == "file"
