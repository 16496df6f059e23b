"""The code that decides a result: what a name needs, in this package, and no more."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# What runs here is what was imported, whatever is edited meanwhile.
_SOURCES = {path: path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")}


def digest(*roots: str, package: Path = PACKAGE) -> str:
    """Of all code that ``roots`` run, without comments and docstrings, which decide nothing.

    A root is a module, ``cappaper.x.y``; or one class or function, ``cappaper.x.y:name``, with
    what this one makes use of in its module. ``package`` is the package's folder.
    """
    code = closure(*roots, package=package).items()
    said = [f"{name} {ast.dump(tree)}" for name, tree in sorted(code)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def closure(*roots: str, package: Path = PACKAGE) -> dict[str, ast.Module]:
    """The code of ``roots`` and of each module that they import, directly or not, lazily or not.

    A name that a package's ``__init__`` only passes on counts as imported from where it is made:
    what else that ``__init__`` offers decides nothing.
    """
    found: dict[str, ast.Module] = {}
    waiting = list(roots)
    while waiting:
        root = waiting.pop()
        if root not in found:
            module, _, name = root.partition(":")
            code = _code(package, module)
            found[root] = _needed(code, name) if name else code
            waiting += _imports(package, found[root])
    return found


def _imports(package: Path, code: ast.Module) -> Iterator[str]:
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _file(package, alias.name))
        elif isinstance(node, ast.ImportFrom) and _file(package, node.module):
            yield from (_maker(package, node.module or "", alias.name) for alias in node.names)


def _maker(package: Path, module: str, name: str) -> str:
    """The module that makes ``name``, which is imported from ``module``."""
    if _file(package, f"{module}.{name}"):
        return f"{module}.{name}"
    file = _file(package, module)
    if file is not None and file.name == "__init__.py":
        for node in _code(package, module).body:
            if isinstance(node, ast.ImportFrom) and _file(package, node.module):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _maker(package, node.module or "", alias.name)
    return module


def _needed(code: ast.Module, name: str) -> ast.Module:
    """The statements of a module that ``name`` makes use of, directly or not."""
    makers = {made: statement for statement in code.body for made in _made(statement)}
    needed, waiting = set(), [name]
    while waiting:
        statement = makers.get(waiting.pop())
        if statement is not None and statement not in needed:
            needed.add(statement)
            waiting += [n.id for n in ast.walk(statement) if isinstance(n, ast.Name)]
    return ast.Module([s for s in code.body if s in needed], [])


def _made(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, (ast.Import, ast.ImportFrom)):
        yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
    else:
        names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
        yield from (name.id for name in names if isinstance(name.ctx, ast.Store))


def _file(package: Path, module: str | None) -> Path | None:
    """Where a module of the package lies; None for any other, and for what is no module."""
    first, *rest = (module or "").split(".")
    path = package.joinpath(*rest)
    files = [path / "__init__.py", *([path.with_suffix(".py")] if rest else [])]
    return next((f for f in files if f.exists()), None) if first == package.name else None


def _code(package: Path, module: str) -> ast.Module:
    file = _file(package, module)
    assert file is not None, f"there is no module {module}"
    code = ast.parse(_SOURCES.get(file) or file.read_text(encoding="utf-8"))
    for node in ast.walk(code):
        if isinstance(body := getattr(node, "body", None), list):
            for statement in list(body):
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    body.remove(statement)
    return code
