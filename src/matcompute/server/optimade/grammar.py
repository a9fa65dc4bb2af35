"""The filter language of OPTIMADE: text to a small tree of dataclasses (`parse`).

The grammar is that of the specification (appendix "The Filter Language EBNF Grammar"), optional constructs included, in
LALR form: time grows with the length of the text, which a public door needs (the reference parser is Earley).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import LarkError, UnexpectedInput

from matcompute.server.optimade.problems import BadRequest

__all__ = [
    "And", "Bare", "Compare", "Expression", "Fuzzy", "Has", "Known", "Length", "Name", "Not", "Or", "Value", "parse",
]  # fmt: skip

#: Limits of one filter: characters, comparisons, depth of parentheses.
MAX_CHARACTERS, MAX_TERMS, MAX_DEPTH = 16_384, 400, 50

Operator = Literal["<", "<=", ">", ">=", "=", "!="]

_GRAMMAR = r"""
?start: expression
expression: clause (_OR clause)*
clause: phrase (_AND phrase)*
phrase: NOT? (comparison | "(" expression ")")
?comparison: constant_first | property_first
constant_first: constant OPERATOR value
property_first: property rest?
?rest: compare | fuzzy | known | has | zipped | length
compare: OPERATOR value
fuzzy: CONTAINS value | STARTS _WITH? value | ENDS _WITH? value
known: _IS (KNOWN | UNKNOWN)
has: _HAS (item | ALL items | ANY items | ONLY items)
length: _LENGTH OPERATOR? SIGNED_INT
zipped: (":" property)+ _HAS (zip | ALL zips | ANY zips | ONLY zips)
items: item ("," item)*
item: OPERATOR? value
zips: zip ("," zip)*
zip: item (":" item)+
?value: constant | property
?constant: string | number | bool
property: IDENTIFIER ("." IDENTIFIER)*
string: STRING
number: SIGNED_INT | SIGNED_FLOAT
bool: TRUE | FALSE
_AND: "AND"
_OR: "OR"
NOT: "NOT"
_IS: "IS"
KNOWN: "KNOWN"
UNKNOWN: "UNKNOWN"
CONTAINS: "CONTAINS"
STARTS: "STARTS"
ENDS: "ENDS"
_WITH: "WITH"
_LENGTH: "LENGTH"
_HAS: "HAS"
ALL: "ALL"
ANY: "ANY"
ONLY: "ONLY"
TRUE: "TRUE"
FALSE: "FALSE"
OPERATOR: /<=|>=|!=|<|>|=/
IDENTIFIER: /[a-z_][a-z0-9_]*/
STRING: /"([^"\\]|\\["\\])*"/
SIGNED_FLOAT.2: /[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?[0-9]+[eE][+-]?[0-9]+/
SIGNED_INT: /[+-]?[0-9]+/
%import common.WS
%ignore WS
"""
_REVERSED: dict[str, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}


@dataclass(frozen=True)
class Name:
    """A property, nested names joined by points."""

    path: str


Value = str | int | float | bool | Name
Item = tuple[Operator, Value]


@dataclass(frozen=True)
class And:
    """All of them."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Or:
    """One of them."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Not:
    """The opposite."""

    part: Expression


@dataclass(frozen=True)
class Compare:
    """``left operator right``; the left side is a property unless both sides are constants."""

    left: Value
    operator: Operator
    right: Value


@dataclass(frozen=True)
class Bare:
    """A property alone: it is true."""

    name: Name


@dataclass(frozen=True)
class Fuzzy:
    """CONTAINS, STARTS or ENDS."""

    name: Name
    kind: Literal["CONTAINS", "STARTS", "ENDS"]
    value: Value


@dataclass(frozen=True)
class Known:
    """IS KNOWN, or IS UNKNOWN."""

    name: Name
    known: bool


@dataclass(frozen=True)
class Has:
    """HAS over one list or several correlated ones; each wanted thing has one item for each list."""

    names: tuple[Name, ...]
    quantifier: Literal["ALL", "ANY", "ONLY"]
    wanted: tuple[tuple[Item, ...], ...]


@dataclass(frozen=True)
class Length:
    """The length of a list."""

    name: Name
    operator: Operator
    value: int


Expression = And | Or | Not | Compare | Bare | Fuzzy | Known | Has | Length


@v_args(inline=True)
class _ToTree(Transformer[Any, Any]):
    def expression(self, *parts: Expression) -> Expression:
        return parts[0] if len(parts) == 1 else Or(parts)

    def clause(self, *parts: Expression) -> Expression:
        return parts[0] if len(parts) == 1 else And(parts)

    def phrase(self, *parts: Any) -> Expression:
        return Not(parts[1]) if len(parts) == 2 else parts[0]

    def constant_first(self, left: Value, operator: Token, right: Value) -> Expression:
        # `3 < nsites` says the same as `nsites > 3`.
        if isinstance(right, Name):
            return Compare(right, _REVERSED[str(operator)], left)
        return Compare(left, _operator(operator), right)

    def property_first(self, name: Name, rest: Any = None) -> Expression:
        return Bare(name) if rest is None else rest(name)

    def compare(self, operator: Token, value: Value) -> Any:
        return lambda name: Compare(name, _operator(operator), value)

    def fuzzy(self, kind: Token, value: Value) -> Any:
        return lambda name: Fuzzy(name, str(kind), value)  # type: ignore[arg-type]

    def known(self, word: Token) -> Any:
        return lambda name: Known(name, str(word) == "KNOWN")

    def has(self, *parts: Any) -> Any:
        quantifier, items = ("ANY", (parts[0],)) if len(parts) == 1 else (str(parts[0]), parts[1])
        return lambda name: Has((name,), quantifier, tuple((item,) for item in items))  # type: ignore[arg-type]

    def zipped(self, *parts: Any) -> Any:
        more = tuple(p for p in parts if isinstance(p, Name))
        rest = parts[len(more) :]
        quantifier, zips = ("ANY", (rest[0],)) if len(rest) == 1 else (str(rest[0]), rest[1])
        for one in zips:
            if len(one) != len(more) + 1:
                raise BadRequest(
                    f"{len(more) + 1} correlated lists need {len(more) + 1} values each, not {len(one)}"
                )
        return lambda name: Has((name, *more), quantifier, zips)  # type: ignore[arg-type]

    def length(self, *parts: Any) -> Any:
        operator = _operator(parts[0]) if len(parts) == 2 else "="
        return lambda name: Length(name, operator, int(parts[-1]))

    def items(self, *parts: Item) -> tuple[Item, ...]:
        return parts

    def item(self, *parts: Any) -> Item:
        return (_operator(parts[0]) if len(parts) == 2 else "=", parts[-1])

    def zips(self, *parts: tuple[Item, ...]) -> tuple[tuple[Item, ...], ...]:
        return parts

    def zip(self, *parts: Item) -> tuple[Item, ...]:
        return parts

    def property(self, *parts: Token) -> Name:
        return Name(".".join(parts))

    def string(self, token: Token) -> str:
        return re.sub(r"\\(.)", r"\1", str(token)[1:-1], flags=re.DOTALL)

    def number(self, token: Token) -> int | float:
        return int(token) if token.type == "SIGNED_INT" else float(token)

    def bool(self, token: Token) -> bool:
        return str(token) == "TRUE"


def _operator(token: Token) -> Operator:
    return str(token)  # type: ignore[return-value]


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


@lru_cache(maxsize=512)
def parse(text: str) -> Expression:
    """Return the tree of a filter.

    Raises
    ------
    BadRequest
        If it is no filter, or a larger one than this server takes.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadRequest(f"the filter has {len(text)} characters; this server takes {MAX_CHARACTERS}")
    if "\x00" in text:
        raise BadRequest("the filter holds a NUL character")
    outside = re.sub(r'"([^"\\]|\\["\\])*"', '""', text)
    depth = deepest = 0
    for character in outside:
        depth += (character == "(") - (character == ")")
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise BadRequest(f"the filter has {deepest} nested parentheses; this server takes {MAX_DEPTH}")
    if len(re.findall(r"\b(?:AND|OR)\b|,", outside)) >= MAX_TERMS:
        raise BadRequest(f"the filter has more than {MAX_TERMS} terms")
    if re.search(r"[0-9]{400}", outside):
        raise BadRequest("the filter holds a number of more than 400 digits")
    try:
        return _ToTree().transform(_parser().parse(text))
    except UnexpectedInput as error:
        at = max(error.pos_in_stream or 0, 0)
        raise BadRequest(
            f"the filter cannot be read at character {at + 1}: {text[at : at + 30]!r}"
        ) from error
    except LarkError as error:
        if isinstance(cause := getattr(error, "orig_exc", None), BadRequest):
            raise cause from error
        raise BadRequest(f"the filter cannot be read: {error}") from error
