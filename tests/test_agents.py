"""``lanit mcp`` by the protocol's own client: it answers what commands print, reads what it was given, and no more."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from lanit.errors import LanitError
from pipeline.agents.server import build_server
from pipeline.agents.tools import AgentOptions, Tools
from pipeline.files import sealed, write_json
from pipeline.store.index import INDEX_NAME

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")

ROOT = Path(__file__).parent.parent
FOUND = {"runs": [{"run": "run"}], "warnings": ["few images"]}


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def world(
    make_images: Callable[..., Path], tiny_clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Working directory with a store, labelled, and a run that was evaluated, beside one that was not."""
    monkeypatch.chdir(tmp_path)
    run("embed", make_images(6, "photos"), "--clip", tiny_clip_folder, "--json")
    run("label", "red", "blue", "--json")
    run("search", "anything", "--json")  # which builds the index where there is none
    for name in ("run", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    write_json(tmp_path / "run" / "evaluation.json", sealed(FOUND))
    (tmp_path / "secret").mkdir()
    write_json(tmp_path / "secret" / "evaluation.json", sealed({"secret": 1}))
    return tmp_path


def tree(folder: Path) -> dict[str, str]:
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def asked(tools: Tools, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    async def talk() -> list[Any]:
        async with mcp.Client(build_server(tools)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(talk())


def test_the_tools_answer_what_the_commands_print(world: Path) -> None:
    before = tree(world)
    answers = asked(
        Tools(AgentOptions(runs=("run",))),
        ("search", {"text": "a red square", "top": 3}),
        ("inspect_labels", {"rules": "adaptive,top-1"}),
        ("evaluation", {"run": "run"}),
    )
    assert not any(answer.is_error for answer in answers)
    search, inspected, evaluation = (answer.structured_content for answer in answers)
    assert tree(world) == before, "nothing is written"
    assert search == run("search", "a red square", "--top", 3, "--json")
    assert inspected == run("inspect-labels", "--rules", "adaptive,top-1", "--json")
    assert evaluation == FOUND


def test_no_tool_takes_a_path_and_each_says_that_it_reads(world: Path) -> None:
    async def listed() -> Any:
        async with mcp.Client(build_server(Tools(AgentOptions()))) as client:
            return await client.list_tools()

    tools = {tool.name: tool for tool in asyncio.run(listed()).tools}
    takes = {name: set(tool.input_schema["properties"]) for name, tool in tools.items()}
    assert takes == {
        "search": {"text", "top", "labels"}, "inspect_labels": {"revision", "rules"}, "evaluation": {"run"},
    }  # fmt: skip
    for tool in tools.values():
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("evaluation", {"run": "secret"}, "was given no run called 'secret'. Choose one of run, other."),
        ("evaluation", {"run": "run/../secret"}, "was given no run called"),
        ("evaluation", {"run": "other"}, "other has not been evaluated. Run: lanit evaluate other"),
        ("search", {"text": " "}, "the text to search for is empty"),
        ("search", {"text": "x", "top": 10**9}, "top is 1 to 200"),
        ("search", {"text": "x", "labels": ["gren"]}, "has no label 'gren'"),
        ("inspect_labels", {"revision": 9}, "revision 9"),
        ("inspect_labels", {"rules": "best"}, "best"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(
    world: Path, name: str, arguments: dict[str, Any], said: str
) -> None:
    before = tree(world)
    (answer,) = asked(Tools(AgentOptions(runs=("run", "other"))), (name, arguments))
    assert answer.is_error
    assert said in answer.content[0].text
    assert tree(world) == before


def test_a_store_whose_index_does_not_fit_is_refused_rather_than_written_to(world: Path) -> None:
    tools = Tools(AgentOptions())
    (world / "manifests" / INDEX_NAME).unlink()
    before = tree(world)
    (answer,) = asked(tools, ("search", {"text": "x"}))
    assert "Start lanit mcp again" in answer.content[0].text
    with pytest.raises(LanitError, match="does not fit") as caught:
        Tools(AgentOptions())
    assert caught.value.hint == "Run: lanit index --store manifests"
    assert tree(world) == before


def test_a_folder_that_is_no_run_is_refused_at_the_start(world: Path) -> None:
    with pytest.raises(LanitError, match="secret is no folder of a training run"):
        Tools(AgentOptions(runs=("secret",)))


@pytest.mark.slow
def test_the_command_speaks_the_protocol_on_standard_input_and_output(world: Path) -> None:
    async def talk() -> Any:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        code = "from lanit import command; command()"
        server = mcp.StdioServerParameters(command=sys.executable, args=["-c", code, "mcp", "run"], env=environment)
        async with mcp.Client(server) as client:
            return await client.call_tool("search", {"text": "a red square", "top": 2})

    answer = asyncio.run(talk())
    assert not answer.is_error
    assert len(answer.structured_content["hits"]) == 2
