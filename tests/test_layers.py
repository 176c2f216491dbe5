"""cli -> pipeline -> lanit, never back; lanit is torch and NumPy only; what a package imports on its own is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LANIT_MAY_USE = {"torch", "numpy", "lanit"}
DOORWAY = ROOT / "lanit" / "__init__.py"  # lanit.load and the command: from the method to what opens files
OPENS_FILES = {"os", "io", "pathlib", "shutil", "tempfile", "glob", "pickle", "shelve", "sqlite3", "urllib", "socket"}
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "stand_ins extras",
        "files column_names path_names commands progress",
        "folders parquet_seals computing",
        "decoding clip showing serving",
        "tables prompts",
        "inputs",
        "store models",
        "words searching exports embedding stability",
        "labelling suggestion translating importing",
        "training inspection runs",
        "api settings label_frame doctor",
        "stages",
        "sample_world",
        "evaluation",
        "play review model_exports agents",
    )
)
"""The rooms of pipeline/ from the ground up; those of one floor do not know each other."""
LIGHT = {"lanit", "pipeline", "typer", "rich", "json"}


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(nodes: list[ast.AST]) -> set[str]:
    """Full names of the modules that the import statements among ``nodes`` name."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            names.add(node.module or "")
    return names


def all_imports(path: Path) -> set[str]:
    return imported(list(ast.walk(ast.parse(path.read_text(encoding="utf-8")))))


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def at_import_time(tree: ast.Module) -> list[ast.AST]:
    """Nodes that run when the module is imported, those for the type checker left out."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        found.append(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("path", modules("lanit"), ids=lambda path: path.name)
def test_the_method_uses_torch_and_numpy_only_and_opens_no_file(path: Path) -> None:
    behind = {name for name in all_imports(path) if path == DOORWAY and name.startswith("pipeline.")}
    used = tops(all_imports(path) - behind)
    assert used <= LANIT_MAY_USE | sys.stdlib_module_names
    assert not used & OPENS_FILES
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    assert not names & {"open", "print", "input"}
    assert not {ast.unparse(node.func) for node in calls} & {"torch.load", "torch.save", "torch.hub.load"}


def test_the_doorway_imports_what_is_behind_it_when_it_is_called() -> None:
    tree = ast.parse(DOORWAY.read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    behind = {
        "embed": {"pipeline.stages"}, "open_store": {"pipeline.stages"}, "train": {"pipeline.stages"},
        "load": {"pipeline.api"}, "read_labels": {"pipeline.label_frame"}, "command": set(),
    }  # fmt: skip
    assert list(functions) == [*behind, "__getattr__", "_beside"]
    for name, modules_behind in behind.items():
        assert imported(list(ast.walk(functions[name]))) == modules_behind
    assert imported(at_import_time(tree)) == {"__future__", "typing"}
    script = "import sys, lanit; print(sorted({'torch', 'pipeline', 'numpy', 'PIL'} & set(sys.modules)), lanit.load)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] <function load")


@pytest.mark.parametrize("path", modules("pipeline"), ids=lambda path: str(path.relative_to(ROOT / "pipeline")))
def test_the_pipeline_does_not_know_the_command_line(path: Path) -> None:
    assert not tops(all_imports(path)) & {"cli", "typer", "tests", "benchmarks"}


def test_nothing_imports_the_tests_and_the_package_inits_are_light() -> None:
    for path in [ROOT / "cli.py", *modules("lanit", "pipeline")]:
        assert "tests" not in tops(all_imports(path))
    for path in modules("lanit", "pipeline"):
        if path.name == "__init__.py":
            assert path == DOORWAY or tops(all_imports(path)) <= {"__future__"}, path


def test_the_command_line_imports_nothing_heavy_at_its_top() -> None:
    """Through every module of ours that it imports on the way."""
    waiting, seen = ["cli"], set()
    while waiting:
        name = waiting.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        names = imported(at_import_time(ast.parse(path.read_text(encoding="utf-8"))))
        heavy = tops(names) - LIGHT - sys.stdlib_module_names
        assert not heavy, f"{path.relative_to(ROOT)} imports {', '.join(sorted(heavy))} at import time"
        waiting.extend(names)
    assert len(seen) > 1


def edges() -> dict[str, set[str]]:
    """Every module of ours to those of ours that it imports anywhere, the doorway's call apart."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in modules("lanit", "pipeline")}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()} | {"cli": ROOT / "cli.py"}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        used: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                used |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
            elif isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
        found[name] = {other for other in used if other in names and other != name}
    found["lanit"] = {other for other in found["lanit"] if not other.startswith("pipeline.")}
    return found


def test_no_room_imports_a_higher_one_nor_its_neighbour() -> None:
    floor = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
    wrong = set()
    for name, used in edges().items():
        if not name.startswith("pipeline."):
            continue
        room = name.split(".")[1]
        for other in used:
            above = other.split(".")[1] if other.startswith("pipeline.") else ""
            if above and above != room and floor[above] >= floor[room]:
                wrong.add(f"{name} imports {other}")
    assert not wrong
    assert {name.split(".")[1] for name in edges() if name.startswith("pipeline.")} == set(floor)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = edges()
    while leaves := {name for name, used in graph.items() if not used & graph.keys()}:
        graph = {name: used for name, used in graph.items() if name not in leaves}
    assert not graph
