"""``lanit mcp``: the tools over the Model Context Protocol, on standard input and output."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from lanit.errors import LanitError
from pipeline.agents.tools import AgentOptions, Tools
from pipeline.extras import install

if TYPE_CHECKING:
    from mcp.server import MCPServer

_T = TypeVar("_T")
_INSTRUCTIONS = """\
A store of images, each embedded by CLIP and labelled by phrases (domains), and runs that learned to translate between
these. The tools read; labels are CLIP's judgement of pictures, not facts about what or whom they show."""


def serve(options: AgentOptions) -> None:
    """Serve until standard input ends. Raises LanitError where mcp is missing, or as :class:`Tools` does."""
    if importlib.util.find_spec("mcp") is None:
        raise LanitError("lanit mcp needs mcp, which is not installed", f"Install it: {install('mcp')}")
    build_server(Tools(options)).run("stdio")


def build_server(tools: Tools) -> MCPServer:
    """A server of the three tools, each of which is marked as read-only."""
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    server = MCPServer("lanit", instructions=_INSTRUCTIONS, log_level="ERROR")
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @server.tool(annotations=reads)
    def search(text: str, top: int = 20, labels: list[str] | None = None) -> dict[str, Any]:
        """Find the images nearest to a text, such as a caption; with labels, only images that have all of them.
        top: how many, at most 200."""
        return _answered(lambda: tools.search(text, top, labels or []))

    @server.tool(annotations=reads)
    def inspect_labels(revision: int | None = None, rules: str | None = None) -> dict[str, Any]:
        """Report on labels: shares, margins, stability, coverage, what goes together, with warnings that say what to
        try. revision: the newest unless given. rules: label rules to set side by side, such as adaptive,top-2."""
        return _answered(lambda: tools.inspect_labels(revision, rules))

    @server.tool(annotations=reads)
    def evaluation(run: str) -> dict[str, Any]:
        """What lanit evaluate last found of a run: distances, accuracy and kept of each domain, with intervals.
        run: as lanit mcp was given it; a wrong name is answered with those there are."""
        return _answered(lambda: tools.evaluation(run))

    return server


def _answered(ask: Callable[[], _T]) -> _T:
    """Errors of lanit as sentences for who asked."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        return ask()
    except LanitError as error:
        raise ToolError(f"{error.message}. {error.hint}".strip()) from error
