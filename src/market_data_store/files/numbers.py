"""How numbers are written, and SQL that reads them: thousands separators, K, M and B, signs of currencies, commas.

DuckDB's own cast reads most files. The patterns are strict, so that a number that is written otherwise than the rest
becomes a reject and never another number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from market_data_store.files.cells import NO_VALUES, is_missing
from market_data_store.files.options import Undecided

_CURRENCY = "[$€£¥]?"
_GROUPED = re.compile(r"\s*[+-]?\d{1,3}(?:,\d{3})+\s*")
_COMMA_IS_DECIMAL = re.compile(r"\s*[+-]?(?:\d*,(?:\d{1,2}|\d{4,})|\d{1,3}(?:[. ]\d{3})+,\d*|0,\d+)\s*[KMBkmb%]?\s*")
_COMMA_GROUPS = re.compile(
    r"\s*[$€£¥]?[+-]?\d{1,3}(?:,\d{3})+(?:\.\d*|,\d{3}(?:,\d{3})*)\s*[KMBkmb%]?\s*|[^,]*\d,\d{3},\d{3}.*"
)
_POINT = re.compile(r"\s*[+-]?\d*\.(?:\d{1,2}|\d{4,})\s*|\s*[+-]?0\.\d+\s*|\s*[+-]?\d{4,}\.\d+\s*")


@dataclass(frozen=True, slots=True)
class Style:
    """How the numbers of a file are written."""

    #: Whether more than DuckDB's own cast is needed.
    is_rich: bool = False
    decimal: str = "."
    #: Texts of the user that stand for no value.
    nulls: tuple[str, ...] = ()

    def is_null(self, text: str) -> str:
        """Return SQL that says whether a text stands for no value."""
        texts = sorted({*NO_VALUES, *(null.strip().lower() for null in self.nulls)})
        listed = ", ".join("'" + text.replace("'", "''") + "'" for text in texts)
        return f"lower({text}) IN ({listed})"

    def number(self, text: str, scale: Decimal | None) -> str:
        """Return SQL of the double that a text is; null for none and for what is not a number."""
        # In a file that needs no more than a cast, all numbers are finite: others count as odd.
        return scaled(finite(self.rich(text)) if self.is_rich else f"TRY_CAST({text} AS DOUBLE)", scale)

    def integer(self, text: str, number: str) -> str:
        """Return SQL of the integer that a text is; `number` is that of its double where the style is rich."""
        is_whole = f"regexp_full_match({text}, '[+-]?[0-9]+([.]0*)?')"
        whole = f"CASE WHEN {is_whole} THEN TRY_CAST(split_part({text}, '.', 1) AS BIGINT) END"
        if not self.is_rich:
            return whole
        exact = f"{number} = floor({number}) AND abs({number}) < 1e15"
        return f"coalesce({whole}, CASE WHEN {exact} THEN ({number})::BIGINT END)"

    def rich(self, text: str) -> str:
        """Return SQL of the double that a text is in this style."""
        point, group = (",", r"[. ''’\x{00A0}\x{202F}]") if self.decimal == "," else (".", r"[, ''’\x{00A0}\x{202F}]")
        body = rf"([0-9]{{1,3}}({group}[0-9]{{3}})+|[0-9]+)?([{point}][0-9]*)?"
        shape = rf"({_CURRENCY} ?[+-]?|[+-]{_CURRENCY}){body}"
        bare = f"replace(regexp_replace({text}, '[^0-9{point}+-]', '', 'g'), ',', '.')"
        factors = "WHEN 'K' THEN 1000 WHEN 'M' THEN 1000000 WHEN 'B' THEN 1000000000 ELSE 1000000000000"
        with_suffix = f"(TRY_CAST({bare} AS DECIMAL(24, 8)) * CASE upper(right({text}, 1)) {factors} END)::DOUBLE"
        own = f"TRY_CAST({text} AS DOUBLE)"
        plain = "NULL" if self.decimal == "," else own
        exponent = rf"[+-]?[0-9]*([{point}][0-9]*)?[eE][+-]?[0-9]+"
        return (
            f"CASE WHEN {self.is_null(text)} THEN NULL "
            f"WHEN {plain} IS NOT NULL THEN {own} "
            f"WHEN regexp_full_match({text}, '{shape}') THEN TRY_CAST({bare} AS DOUBLE) "
            f"WHEN regexp_full_match({text}, '{shape} ?[KMBTkmbt]') THEN {with_suffix} "
            f"WHEN regexp_full_match({text}, '{exponent}') THEN TRY_CAST(replace({text}, ',', '.') AS DOUBLE) END"
        )


def finite(number: str) -> str:
    """Return SQL of a double, null if it is NaN or an infinity."""
    for other in ("nan", "inf", "-inf"):
        number = f"nullif({number}, '{other}'::DOUBLE)"
    return number


def scaled(number: str, scale: Decimal | None) -> str:
    """Return SQL of a double times a factor."""
    if scale is None:
        return number
    inverse = 1 / scale
    # A quotient is rounded once; a factor such as 1e-9 would be rounded before it is multiplied.
    if inverse == inverse.to_integral_value():
        return f"({number}) / {int(inverse)}::DOUBLE"
    return f"({number}) * {scale}::DOUBLE"


def decimal_of(plain: Iterable[str | None], odd: Sequence[str], given: str | None, *, comma_is_free: bool) -> str:
    """Return the decimal separator: as given, or as numbers show it; `odd` are those that a plain cast cannot read.

    Raises `Undecided` where 1,234 may be either.
    """
    if given is not None:
        if given not in (".", ","):
            raise Undecided(f"--decimal {given}: give a point or a comma")
        return given
    commas = [text for text in odd if "," in text and not is_missing(text)]
    if not commas:
        return "."
    decimal = any(map(_COMMA_IS_DECIMAL.fullmatch, commas))
    groups = any(map(_COMMA_GROUPS.fullmatch, commas)) or any(
        text is not None and _POINT.fullmatch(text) for text in plain
    )
    example = next((text for text in commas if _GROUPED.fullmatch(text)), commas[0]).strip()
    if decimal and groups:
        raise Undecided(f"'{example}': some numbers have a decimal comma, some do not; give --decimal , or --decimal .")
    if decimal:
        return ","
    if comma_is_free and not groups and any(map(_GROUPED.fullmatch, commas)):
        raise Undecided(f"'{example}': is the comma a decimal one? Give --decimal , or --decimal .")
    return "."
