"""Labels as a pandas table, for a person's own analysis: what ``lanit.read_labels`` gives."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import pandas as pd

from pipeline.column_names import own_columns
from pipeline.store.schemas import MARGIN_PREFIX
from pipeline.store.store import Store

StoreName = str | Path
LabelFrame: TypeAlias = pd.DataFrame

_COLUMNS = ("image_id", "path", "source", "width", "height")


def label_frame(store: StoreName, revision: int | None = None, *, margins: bool = False) -> LabelFrame:
    """A row for each embedded image, in store order: ``image_id``, ``path``, ``source``, ``width``, ``height``, then a
    column of bool for each phrase, and with ``margins`` one of float32, ``margin:PHRASE``. A column of ours gives way
    to a phrase of its name: ``path`` becomes ``lanit_path``.

    revision: the newest unless one is named. Raises LanitError where there is none, or it labels other images than the
    store holds.
    """
    opened = Store.open(Path(store))
    labels = opened.revision_file(revision)
    opened.check_current(labels)
    read, domains = labels.read(), labels.domains
    frame = opened.ok_images().select(list(_COLUMNS)).to_pandas()
    more = [MARGIN_PREFIX + domain for domain in domains] if margins else []
    ours = own_columns([*_COLUMNS, *more], domains)
    parts = [frame, pd.DataFrame(read.active), *([pd.DataFrame(read.margin)] if margins else [])]
    joined = pd.concat(parts, axis=1)
    joined.columns = pd.Index([*ours[: len(_COLUMNS)], *domains, *ours[len(_COLUMNS) :]])
    return joined
