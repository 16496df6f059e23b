"""Mutants, drawn from the places of the code where one can be made."""

from __future__ import annotations

import ast
import random
import tempfile
from collections import defaultdict
from pathlib import Path

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, WorkItem


def drawn(modules: tuple[str, ...], cases: int, seed: int) -> list[WorkItem]:
    """One mutant each for ``cases`` places, all places being as likely.

    Drawn by place, since an operator between two numbers has a dozen mutants and a wrong margin
    only two. What changes type hints alone is no mutant, nor is what is no Python.
    """
    with tempfile.TemporaryDirectory() as folder, use_db(Path(folder) / "all.sqlite") as db:
        init([Path(name) for name in modules], db, {})
        everything = sorted(db.work_items, key=_place)
    places = defaultdict(list)
    for item in everything:
        places[_place(item)[:3]].append(item)
    draw, found = random.Random(seed), []
    for place in draw.sample(sorted(places), len(places)):
        item = draw.choice(places[place])
        if len(found) < cases and _differs(item.mutations[0]):
            found.append(item)
    return found


def _place(item: WorkItem) -> tuple[str, int, int, str, int]:
    (mutation,) = item.mutations
    row, column = mutation.start_pos
    return str(mutation.module_path), row, column, mutation.operator_name, mutation.occurrence


def _differs(mutation: MutationSpec) -> bool:
    code = mutation.module_path.read_text(encoding="utf-8")
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    mutated = mutate_code(code, operator, mutation.occurrence)
    try:
        return mutated is not None and _bare(code) != _bare(mutated)
    except SyntaxError:  # Python notices
        return False


def _bare(code: str) -> str:
    return ast.dump(_WithoutHints().visit(ast.parse(code)))


class _WithoutHints(ast.NodeTransformer):
    """Python does not evaluate them under ``from __future__ import annotations``."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)
