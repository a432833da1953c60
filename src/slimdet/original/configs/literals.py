"""Python files of constants, `dict(...)`, names and arithmetic, read without executing them."""

import ast
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

from slimdet.errors import ConfigError
from slimdet.messages import did_you_mean

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_LARGEST = 1e15  # no setting is larger; keeps `9 ** 9 ** 9` and `"a" * 10 ** 9` from filling the memory
_LONGEST = 10_000


class Section(dict[str, Any]):
    """A dict that knows the line it begins on and the line of each of its keys, for error messages."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}

    def put(self, key: str, value: Any, line: int) -> None:
        self[key] = value
        self.lines[key] = line


class LiteralFile:
    """One file, read top to bottom.

    Attributes:
        values: every name the file assigns, with the line of its last assignment.
        used: names that other expressions refer to, so that a file's own helper names can be told from misspellings.

    Raises:
        ConfigError: unreadable, not Python, or code that is not data: file, line and what stands there.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.values = Section(1)
        self.used: set[str] = set()
        try:
            source = self.path.read_text(encoding="utf-8-sig")
            statements = ast.parse(source, str(path)).body
            for statement in statements:
                self._assign(statement)
        except OSError as error:
            raise ConfigError(f"config {path} cannot be read: {error.strerror}") from None
        except SyntaxError as error:
            raise ConfigError(f"{path}:{error.lineno or 1}: not valid Python: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path}: not a text file of settings: {type(error).__name__}") from None

    def error(self, line: int, message: str) -> ConfigError:
        """A ConfigError that begins with file and line."""
        return ConfigError(f"{self.path}:{line}: {message}")

    def _assign(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            return  # a docstring
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise self._not_data(statement)
        self.values.put(statement.targets[0].id, self._value(statement.value), statement.lineno)

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and not isinstance(node.value, bytes | complex | type(...)):
            return node.value
        if isinstance(node, ast.List):
            return [self._value(item) for item in node.elts]
        if isinstance(node, ast.Tuple):
            return tuple(self._value(item) for item in node.elts)
        if isinstance(node, ast.Name):
            return self._named(node)
        if isinstance(node, ast.Dict):
            return self._section(node, list(zip(node.keys, node.values, strict=True)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            names = [keyword.arg and ast.Constant(keyword.arg, lineno=keyword.lineno) for keyword in node.keywords]
            return self._section(node, list(zip(names, [keyword.value for keyword in node.keywords], strict=True)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not):
            return self._signed(node)
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            return self._computed(node)
        raise self._not_data(node)

    def _named(self, node: ast.Name) -> Any:
        if node.id not in self.values:
            hint = did_you_mean(node.id, self.values)
            raise self.error(node.lineno, f"name {node.id!r} is not defined above this line{hint}")
        self.used.add(node.id)
        return self.values[node.id]

    def _section(self, node: ast.expr, items: list[tuple[Any, ast.expr]]) -> Section:
        section = Section(node.lineno)
        for key, value_node in items:
            value = self._value(value_node)
            if key is None:  # **other
                if not isinstance(value, Section):
                    raise self.error(value_node.lineno, f"** takes a dict, not {value!r}")
                for name, item in value.items():
                    section.put(name, item, value.lines[name])
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                if key.value in section and isinstance(node, ast.Call):  # Python's own error, which parsing leaves out
                    raise self.error(key.lineno, f"{key.value} is given twice")
                section.put(key.value, value, key.lineno)
            else:
                raise self.error(node.lineno, f"the keys of a dict are names, not {ast.unparse(key)}")
        return section

    def _signed(self, node: ast.UnaryOp) -> Any:
        value = self._value(node.operand)
        if isinstance(node.op, ast.Not) and isinstance(value, bool):
            return not value
        if isinstance(node.op, ast.Not) or isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(node.lineno, f"{ast.unparse(node)} cannot be computed")
        return -value if isinstance(node.op, ast.USub) else value

    def _computed(self, node: ast.BinOp) -> Any:
        left, right = self._value(node.left), self._value(node.right)
        numbers = all(isinstance(side, int | float) and not isinstance(side, bool) for side in (left, right))
        joined = isinstance(node.op, ast.Add) and type(left) is type(right) and isinstance(left, str | list | tuple)
        repeated = isinstance(node.op, ast.Mult) and isinstance(left, str | list | tuple) and type(right) is int
        fits = (not repeated or len(left) * right <= _LONGEST) and not (isinstance(node.op, ast.Pow) and right > 100)
        try:
            if fits and (numbers or joined or repeated):
                value = _ARITHMETIC[type(node.op)](left, right)
                fits = abs(value) <= _LARGEST if isinstance(value, int | float) else len(value) <= _LONGEST
                if fits:
                    return value
        except (ArithmeticError, TypeError):
            pass
        raise self.error(node.lineno, f"{_brief(node)} cannot be computed")

    def _not_data(self, node: ast.AST) -> ConfigError:
        line = getattr(node, "lineno", 1)
        return self.error(line, f"{_brief(node)} is code, not data; only constants, dict(), names and arithmetic")


def _brief(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else text[:57] + "..."
