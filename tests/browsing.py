"""For tests that look at pages in a browser: pages opened alike, and all that went wrong in any of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Visits:
    """trouble: what pages said on the console, raised, or asked in a dialog; requests: every address they asked for."""

    def __init__(self, browser: Any, patience_ms: int) -> None:
        self._browser, self._patience_ms = browser, patience_ms
        self._contexts: list[Any] = []
        self.trouble: list[str] = []
        self.requests: list[str] = []

    def open(self, address: str, **options: Any) -> Any:
        """options: of a browser context."""
        context = self._browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self._contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(self._patience_ms)
        page.on("console", lambda message: self.trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.trouble.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(address)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@contextmanager
def visiting(browser: Any, patience_ms: int) -> Iterator[Visits]:
    """Pages, which are closed before what they came to is looked at."""
    visits = Visits(browser, patience_ms)
    yield visits
    visits.close()
