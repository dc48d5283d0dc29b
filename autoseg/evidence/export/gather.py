"""Copies definitions out of a package into one file: those named, and all that they reach."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import decode_source, find_spec
from itertools import accumulate
from pathlib import Path

from autoseg.errors import AutosegError, InputError

Home = tuple[str, str]  # module, name


class Gathered:
    """Definitions in an order in which Python can run them, and the imports they need.

    Args:
        package: names imported from here are copied; all other imports are kept.
        members: class name to the methods to keep; its decorators go. Other classes are copied whole.
        instead: a module of the package; what it defines is copied in the place of what else has that name there.
    """

    def __init__(self, package: str, members: Mapping[str, Collection[str]], instead: str | None = None) -> None:
        self._package, self._members, self._instead = package, members, instead
        self._homes: dict[str, Home] = {}
        self._texts: list[str] = []
        self._plain: set[str] = set()
        self._named: defaultdict[str, set[str]] = defaultdict(set)  # by module

    def add(self, module: str, name: str) -> None:
        """Copy `name` as module `module` knows it, after all it reaches.

        Raises:
            InputError: the module's source cannot be read, or binds the name more than once.
            AutosegError: two different definitions share a name.
        """
        if self._instead is not None and _ours(module, self._package) and _defined(self._instead, name):
            module = self._instead
        text, names = _source(module)
        node = names.get(name)
        if node is None:
            return  # a builtin, a local name, or one that `unbound` finds
        if isinstance(node, ast.Pass):
            hint = "Only the last would be copied: give it its value in one statement."
            raise InputError("export", "a metric whose names are each bound once", f"{name} in {module}", hint)
        if isinstance(node, ast.Import):
            self._keep(module, node)
            return
        if isinstance(node, ast.ImportFrom):
            home = str(node.module)
            if home == self._package:
                home = getattr(import_module(home), name).__module__
            if _ours(home, self._package) or _beside(module, home):
                self.add(home, name)
            else:
                alias = next(a for a in node.names if name in (a.asname, a.name))
                self._named[home].add(ast.unparse(alias))
            return
        if name in self._homes:
            if self._homes[name] != (module, name):
                raise AutosegError(f"{name} is defined in both {module} and {self._homes[name][0]}")
            return
        self._homes |= {bound: (module, bound) for bound in _bound(node)}  # of A, B = 1, 2 both
        kept = self._kept(node)
        for part in kept:
            for reached in _names(part):
                self.add(module, reached)
        self._texts.append(_cut(text, node, kept))

    def _keep(self, module: str, node: ast.Import) -> None:
        """Keep an import of something that is installed."""
        for alias in node.names:
            if _beside(module, alias.name):
                hint = f"Write from {alias.name} import NAME, so that NAME can be copied."
                raise InputError("export", "a metric that needs torch alone", f"import {alias.name} in {module}", hint)
        self._plain.add(ast.unparse(node))

    @property
    def imports(self) -> str:
        """What the copied definitions import."""
        named = [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self._named.items())]
        return "\n".join([*sorted(self._plain), *named])

    @property
    def body(self) -> str:
        """The copied definitions."""
        return "\n\n\n".join(self._texts)

    def _kept(self, node: ast.stmt) -> list[ast.AST]:
        """The parts of a definition that are copied: itself, or a class's head and some of its members."""
        members = self._members.get(node.name) if isinstance(node, ast.ClassDef) else None
        if not isinstance(node, ast.ClassDef) or members is None:
            return [node]
        methods = [part for part in node.body if not isinstance(part, ast.FunctionDef) or part.name in members]
        return [*node.bases, *methods]


def _ours(module: str, package: str) -> bool:
    return module.partition(".")[0] == package


def _defined(module: str, name: str) -> bool:
    """Whether a module defines a name itself."""
    return not isinstance(_source(module)[1].get(name), ast.Import | ast.ImportFrom | None)


def _beside(module: str, other: str) -> bool:
    """Whether another module is a file in the folder of a user's own one."""
    homes = [find_spec(name) for name in (module, other)]
    folders = {Path(str(spec.origin)).parent for spec in homes if spec is not None}
    return all(homes) and len(folders) == 1 and "site-packages" not in folders.pop().parts


@cache
def _source(module: str) -> tuple[str, dict[str, ast.stmt]]:
    """Text of a module and what each of its top-level names is bound by."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise InputError("export", "a metric defined in an importable .py file", module)
    text = decode_source(Path(spec.origin).read_bytes())  # with a byte order mark or in another encoding, as imports
    names: dict[str, ast.stmt] = {}
    text = _unqualified(text, names)
    seen: set[str] = set()
    for node in ast.parse(text).body:
        for name in _bound(node):
            names[name] = ast.Pass() if name in seen else node
            seen.add(name)
    return text, names


def _unqualified(text: str, names: dict[str, ast.stmt]) -> str:
    """A user's module with `Metric` for `autoseg.Metric`, as it can be copied; `names` gets where each is from."""
    import autoseg

    tree, source = ast.parse(text), text.encode()
    imported = [alias for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    ours = {alias.asname or alias.name for alias in imported if alias.name == "autoseg"}
    starts = [0, *accumulate(len(line) + 1 for line in source.split(b"\n"))]  # of lines, in bytes, as ast counts
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            first, said = starts[node.lineno - 1] + node.col_offset, f"{node.value.id}.{node.attr}".encode()
            there = source.startswith(said, first)  # Python 3.11 misplaces what is inside an f-string
            if there and node.attr in autoseg.__all__:
                places.append((first, first + len(said), node.attr))
    for first, last, name in sorted(places, reverse=True):
        names[name] = ast.ImportFrom("autoseg", [ast.alias(name)], 0)
        source = source[:first] + name.encode() + source[last:]
    return source.decode()


def _bound(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.ClassDef() | ast.FunctionDef():
            yield node.name
        case ast.Assign():
            parts = [part for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            yield from dict.fromkeys(part.id for part in parts if isinstance(part.ctx, ast.Store))
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()) | ast.AugAssign(target=ast.Name(id=name)):
            yield name
        case ast.ImportFrom(module="autoseg", names=[ast.alias(name="*")]):
            yield from import_module("autoseg").__all__
        case ast.Import() | ast.ImportFrom():
            yield from (alias.asname or alias.name for alias in node.names)


def _names(node: ast.AST) -> Iterator[str]:
    """Every name used below a node, annotations included, each once."""
    yield from dict.fromkeys(part.id for part in ast.walk(node) if isinstance(part, ast.Name))


def unbound(text: str) -> list[str]:
    """Names that a file uses and that neither it nor Python binds; those of annotations do not count."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
    top = symtable.symtable(ast.unparse(tree), "exported", "exec")
    bound = {one.get_name() for one in top.get_symbols() if one.is_assigned() or one.is_imported()}
    used, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {one.get_name() for one in table.get_symbols() if one.is_global() and one.is_referenced()}
    return sorted(used - bound - set(dir(builtins)))


def _cut(text: str, node: ast.stmt, kept: list[ast.AST]) -> str:
    lines = text.split("\n")  # as ast counts them: splitlines would also end one at a form feed
    if kept == [node] or not isinstance(node, ast.ClassDef):
        decorators = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(d.lineno for d in decorators)])
        return "\n".join(lines[first - 1 : node.end_lineno])
    pieces, before = lines[node.lineno - 1 : node.body[0].lineno - 1], None
    for part in [part for part in node.body if part in kept]:
        if isinstance(before, ast.Expr | ast.FunctionDef) or (before and isinstance(part, ast.FunctionDef)):
            pieces.append("")  # after a docstring, around a method
        pieces += lines[part.lineno - 1 : part.end_lineno]
        before = part
    return "\n".join(pieces)
