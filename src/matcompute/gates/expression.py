"""Safe boolean expressions over columns with units: ``e_above_hull <= 0.05 eV/atom and bulk_modulus >= 100 GPa``.

The grammar (lark) knows numbers with units, column names, arithmetic, comparisons (chained as in Python), ``and``,
``or``, ``not``, a few functions and ``has(Al, Ni)``. There is no attribute access, no call of anything else, nothing
is ever evaluated by Python itself. Units are carried by pint.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from matcompute.errors import InputError, did_you_mean
from matcompute.units import registry, split_quantity

if TYPE_CHECKING:
    from lark import Lark, Token, Tree

__all__ = ["FUNCTIONS", "STRUCTURE_COLUMNS", "Expression"]

#: Columns that every entry has, with their units: they come from the structure itself.
STRUCTURE_COLUMNS: dict[str, str] = {"n_sites": "1", "n_elements": "1", "density": "g/cm^3"}

_GRAMMAR = r"""
    ?start: disjunction
    ?disjunction: conjunction
                | conjunction ("or" conjunction)+            -> any_of
    ?conjunction: negation
                | negation ("and" negation)+                 -> all_of
    ?negation: comparison
             | "not" negation                                -> inverse
    ?comparison: sum
               | sum (COMPARE sum)+                          -> comparison
    ?sum: product
        | product ((PLUS | MINUS) product)+                  -> fold
    ?product: factor
            | factor ((TIMES | DIVIDE) factor)+              -> fold
    ?factor: power
           | MINUS factor                                    -> negative
    ?power: atom
          | atom POWER factor                                -> power
    ?atom: QUANTITY                                          -> quantity
         | NUMBER                                            -> number
         | "has" "(" NAME ("," NAME)* ")"                    -> has
         | NAME "(" disjunction ")"                          -> call
         | NAME                                              -> column
         | "(" disjunction ")"

    COMPARE: "<=" | ">=" | "==" | "!=" | "<" | ">"
    PLUS: "+"
    MINUS: "-"
    TIMES: "*"
    DIVIDE: "/"
    POWER: "**" | "^"
    NAME.1: /(?!(?:and|or|not|has)\b)[A-Za-z_][A-Za-z0-9_]*/
    NUMBER.2: /(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?/
    // A unit is written without blanks (eV/atom, g/cm^3), so that "3 GPa / volume" divides.
    QUANTITY.3: /(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[ \t]*(?!(?:and|or|not|has)\b)(?![eE][+-]?\d)[A-Za-zÅåμµ](?:[\w]|[\/*](?=[A-Za-zÅåμµ])|\^-?\d+)*/
    %import common.WS
    %ignore WS
"""  # noqa: E501

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}

#: Functions of one argument that an expression may call.
FUNCTIONS: dict[str, Callable[[Any], Any]] = {"abs": abs, "sqrt": np.sqrt, "log": np.log, "exp": np.exp}


@cache
def _parser() -> Lark:
    from lark import Lark

    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


class Expression:
    """A parsed expression.

    Parameters
    ----------
    text
        The expression.

    Raises
    ------
    InputError
        If the text does not parse; the message points at the place.
    """

    def __init__(self, text: str) -> None:
        from lark.exceptions import UnexpectedInput

        self.text = text.strip()
        if not self.text:
            raise InputError("the expression is empty")
        try:
            self._tree = _parser().parse(self.text)
        except UnexpectedInput as error:
            column = (
                max(getattr(error, "column", 1), 1) if getattr(error, "column", -1) != -1 else len(text) + 1
            )
            mark = " " * (column - 1) + "^"
            raise InputError(
                f"cannot read the expression at character {column}\n    {self.text}\n    {mark}",
                hint="write for example: e_above_hull <= 0.05 eV/atom and bulk_modulus >= 100 GPa",
            ) from None
        for name in self._functions():
            if name not in FUNCTIONS:
                raise InputError(f"unknown function '{name}' in '{self.text}'{did_you_mean(name, FUNCTIONS)}")
        self._check_units_exist()

    @property
    def columns(self) -> set[str]:
        """Names of the columns that the expression reads."""
        return {str(tree.children[0]) for tree in self._tree_of("column")}

    def check(self, units: Mapping[str, str]) -> None:
        """Check names and dimensions against known columns, without any data.

        Parameters
        ----------
        units
            Known column names and their canonical units.

        Raises
        ------
        InputError
            On an unknown column (the nearest spelling is given), a wrong dimension or a result that is not
            true or false.
        """
        known = {**STRUCTURE_COLUMNS, **units}
        for name in sorted(self.columns):
            if name not in known:
                raise InputError(f"unknown column '{name}' in '{self.text}'{did_you_mean(name, known)}")
        one = {name: np.ones(1) for name in self.columns}
        self.evaluate(one, known, elements=np.zeros((1, 119), dtype=bool))

    def evaluate(
        self, values: Mapping[str, np.ndarray], units: Mapping[str, str], elements: np.ndarray | None = None
    ) -> np.ndarray:
        """Evaluate over arrays.

        Parameters
        ----------
        values
            One array ``[n]`` for each name in :attr:`columns`, in its canonical unit.
        units
            Canonical unit of each column.
        elements
            ``bool[n, 119]``, true where the entry holds that atomic number; needed for ``has(…)``.

        Returns
        -------
        numpy.ndarray
            ``bool[n]``.
        """
        import pint

        evaluator = _Evaluator(values, {**STRUCTURE_COLUMNS, **units}, elements, registry(), self.text)
        try:
            with np.errstate(all="ignore"):
                result = evaluator.visit(self._tree)
        except pint.DimensionalityError as error:
            raise InputError(f"the units do not fit in '{self.text}': {error}") from error
        if isinstance(result, pint.Quantity) or np.asarray(result).dtype != bool:
            raise InputError(
                f"'{self.text}' is not a condition", hint="compare it with something: <, <=, >, >=, ==, !="
            )
        return np.asarray(result)

    def _tree_of(self, data: str) -> list[Tree[Token]]:
        from lark import Tree

        if not isinstance(self._tree, Tree):
            return []
        return list(self._tree.find_data(data))

    def _functions(self) -> set[str]:
        return {str(tree.children[0]) for tree in self._tree_of("call")}

    def _check_units_exist(self) -> None:
        import pint

        for tree in self._tree_of("quantity"):
            _, unit = split_quantity(str(tree.children[0]))
            try:
                registry().Unit(unit)
            except (pint.UndefinedUnitError, AttributeError, ValueError) as error:
                raise InputError(f"unknown unit '{unit}' in '{self.text}'") from error


class _Evaluator:
    def __init__(
        self,
        values: Mapping[str, np.ndarray],
        units: Mapping[str, str],
        elements: np.ndarray | None,
        ureg: Any,
        text: str,
    ) -> None:
        self.values, self.units, self.elements, self.ureg, self.text = values, units, elements, ureg, text

    def visit(self, tree: Any) -> Any:
        return getattr(self, tree.data)(tree.children)

    def number(self, children: list[Any]) -> Any:
        return float(children[0])

    def quantity(self, children: list[Any]) -> Any:
        value, unit = split_quantity(str(children[0]))
        return self.ureg.Quantity(value, unit)

    def column(self, children: list[Any]) -> Any:
        name = str(children[0])
        unit = self.units[name]
        return self.ureg.Quantity(np.asarray(self.values[name], dtype=float), "" if unit == "1" else unit)

    def has(self, children: list[Any]) -> Any:
        from ase.data import atomic_numbers

        if self.elements is None:
            raise InputError(f"'has' cannot be used here: '{self.text}'")
        mask = np.ones(len(self.elements), dtype=bool)
        for token in children:
            symbol = str(token)
            if symbol not in atomic_numbers or symbol == "X":
                raise InputError(f"'{symbol}' in '{self.text}' is not a chemical element")
            mask &= self.elements[:, atomic_numbers[symbol]]
        return mask

    def call(self, children: list[Any]) -> Any:
        return FUNCTIONS[str(children[0])](self.visit(children[1]))

    def negative(self, children: list[Any]) -> Any:
        return -self.visit(children[1])

    def power(self, children: list[Any]) -> Any:
        base, exponent = self.visit(children[0]), self.visit(children[2])
        if not isinstance(exponent, float):
            raise InputError(f"an exponent must be a plain number in '{self.text}'")
        return base**exponent

    def fold(self, children: list[Any]) -> Any:
        result = self.visit(children[0])
        for sign, right in zip(children[1::2], children[2::2], strict=True):
            result = _ARITHMETIC[str(sign)](result, self.visit(right))
        return result

    def comparison(self, children: list[Any]) -> Any:
        mask: Any = True
        for left, sign, right in zip(children[:-1:2], children[1::2], children[2::2], strict=True):
            a, b = self._same_unit(left, self.visit(left), right, self.visit(right))
            mask = mask & _COMPARE[str(sign)](a, b)
        return mask

    def _same_unit(self, left: Any, a: Any, right: Any, b: Any) -> tuple[Any, Any]:
        """A bare number beside a column means the column's own unit; beside anything else it has none."""
        if isinstance(a, float) and right.data == "column":
            a = self.ureg.Quantity(a, b.units)
        elif isinstance(b, float) and left.data == "column":
            b = self.ureg.Quantity(b, a.units)
        for number, other in ((a, b), (b, a)):
            if isinstance(number, float) and not getattr(other, "unitless", True):
                raise InputError(
                    f"the number {number:g} in '{self.text}' needs a unit",
                    hint=f"it is compared with something in {other.units:~}",
                )
        return a, b

    def all_of(self, children: list[Any]) -> Any:
        return np.logical_and.reduce([self._boolean(child) for child in children])

    def any_of(self, children: list[Any]) -> Any:
        return np.logical_or.reduce([self._boolean(child) for child in children])

    def inverse(self, children: list[Any]) -> Any:
        return ~self._boolean(children[0])

    def _boolean(self, tree: Any) -> Any:
        value = self.visit(tree)
        if isinstance(value, self.ureg.Quantity) or np.asarray(value).dtype != bool:
            raise InputError(f"'and', 'or' and 'not' need conditions in '{self.text}'")
        return value
