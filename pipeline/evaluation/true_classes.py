"""What the images of a store truly are, beside clusters that nobody named (``lanit evaluate --truth``)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lanit.errors import LanitError
from lanit.matching import Matching, match
from pipeline.files import sha256_bytes
from pipeline.labelling.image_folders import image_folders
from pipeline.labelling.known_labels import FOLDERS, folder_names, folder_truth, image_keys, read_truth
from pipeline.labelling.label_sources import told
from pipeline.store.store import Store

LEAST_CLASSES = 2


@dataclass(frozen=True)
class TrueClasses:
    """What the images of a store truly are. names: C classes. values: int8 (n×C), in store order: 1 of the class, 0
    not, −1 where nobody knows."""

    names: tuple[str, ...]
    values: NDArray[np.int8] = field(repr=False)

    @property
    def digest(self) -> str:
        return sha256_bytes("\n".join(self.names).encode() + self.values.tobytes())

    def carriers(self, number: int) -> NDArray[np.int64]:
        """Rows of the images of a class."""
        return np.flatnonzero(self.values[:, number] == 1)

    def matched(self, active: NDArray[np.bool_]) -> Matching | None:
        """Clusters, bool (n×K), one an image, against the classes, over the images that are of just one; none where
        those are of fewer than two."""
        alone = ((self.values == 1).sum(axis=1) == 1) & active.any(axis=1)
        classes = self.values[alone].argmax(axis=1)
        if len(np.unique(classes)) < LEAST_CLASSES:
            return None
        found = match(active[alone].argmax(axis=1), classes)
        missing = len(self.names) - len(found.cluster_of)
        whole = np.append(found.cluster_of, np.full(missing, -1))
        return Matching(found.images, found.mutual_information, found.accuracy, whole)


def true_classes(store: Store, source: str) -> TrueClasses:
    """What ``--truth`` says of the images of ``store``: all labels of a table, or the folders that they lie in. Raises
    LanitError where it is fewer than two."""
    keys = image_keys(store)
    if source == FOLDERS and not Path(source).is_file():
        folders = image_folders(store)
        truth = folder_truth(folders, folder_names(folders))
    else:
        truth = told(read_truth(Path(source), None, blanks=True), store, keys)
    values = truth.values(truth.align(*keys), truth.domains)
    if len(truth.domains) < LEAST_CLASSES:
        raise LanitError(f"--truth {source} has one class, and clusters are compared with at least {LEAST_CLASSES}")
    return TrueClasses(truth.domains, values)
