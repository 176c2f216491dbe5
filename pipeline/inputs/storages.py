"""Which storage a path lies in."""

from __future__ import annotations

import functools

from pipeline.inputs.storage import Storage, is_url


def storage_of(path: str) -> Storage:
    """Where ``path`` lies."""
    return _remote() if is_url(path) else _local()


@functools.cache
def _local() -> Storage:
    from pipeline.inputs.local import LocalStorage

    return LocalStorage()


@functools.cache
def _remote() -> Storage:
    from pipeline.inputs.remote import RemoteStorage  # fsspec is imported where a URL was given

    return RemoteStorage()
