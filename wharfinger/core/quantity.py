"""Kubernetes quantities: exact amounts of CPU, memory, GPUs, with their written form.

A quantity is a decimal number that is a whole multiple of 10^-9 ("nano"), and the format in which it
likes to be written: `DecimalSI` (`500m`, `2k`), `BinarySI` (`2Gi`) or `DecimalExponent` (`12e6`).
What is finer than a nano is rounded away from zero, so that whoever asks for something gets something
(k8s.io/apimachinery, api/resource). The amount is a Python integer: no operation rounds or overflows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from typing import Any, Final

from wharfinger.core.errors import Malformed, excerpt

NANOS_PER_UNIT: Final = 10**9
LONGEST_TEXT: Final = 1024
"""Characters that a quantity may have; Kubernetes names no limit, no honest one has more than 40."""
LARGEST_EXPONENT: Final = 1024
"""Largest size of a decimal exponent; a text of 13 characters must not cost a gigabyte."""


class Format(Enum):
    """How a quantity likes to be written."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


_SUFFIXES: Final[dict[str, tuple[Format, int]]] = {
    "n": (Format.DECIMAL_SI, -9),
    "u": (Format.DECIMAL_SI, -6),
    "m": (Format.DECIMAL_SI, -3),
    "": (Format.DECIMAL_SI, 0),
    "k": (Format.DECIMAL_SI, 3),
    "M": (Format.DECIMAL_SI, 6),
    "G": (Format.DECIMAL_SI, 9),
    "T": (Format.DECIMAL_SI, 12),
    "P": (Format.DECIMAL_SI, 15),
    "E": (Format.DECIMAL_SI, 18),
    "Ki": (Format.BINARY_SI, 10),
    "Mi": (Format.BINARY_SI, 20),
    "Gi": (Format.BINARY_SI, 30),
    "Ti": (Format.BINARY_SI, 40),
    "Pi": (Format.BINARY_SI, 50),
    "Ei": (Format.BINARY_SI, 60),
}
_WRITTEN: Final = {format_and_exponent: suffix for suffix, format_and_exponent in _SUFFIXES.items()}
_LARGEST_BINARY: Final = (2**63 - 1) * NANOS_PER_UNIT
# The digits may be missing altogether: Kubernetes reads "Ki", "." and "-" as zero.
_PARTS: Final = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:([eE][+-]?[0-9]+)|([numkMGTPE]?|[KMGTPE]i))")


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount: `nanos` times 10^-9, and the `format` it is written in.

    Equality, order and hash go by the amount alone: `1024Mi == 1Gi`, `1k == 1e3`.
    """

    nanos: int
    format: Format = Format.DECIMAL_SI

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Return the quantity that `text` (`100m`, `1.5`, `2Gi`, `12e6`) names.

        A binary amount beyond 2^63 - 1 is cut to that, as the API server does. Raises `Malformed` for
        anything else, and for a text or exponent over the limits of this module.
        """
        match = _PARTS.fullmatch(text) if 0 < len(text) <= LONGEST_TEXT else None
        if match is None:
            raise Malformed(f"expected a quantity such as 100m, 1.5, 2Gi or 12e6, got {excerpt(text)}")
        sign, whole, fraction, power, suffix = match.groups()
        fraction = fraction or ""
        if power:
            form, exponent = Format.DECIMAL_EXPONENT, int(power[1:])
            if abs(exponent) > LARGEST_EXPONENT:
                raise Malformed(f"expected an exponent of at most {LARGEST_EXPONENT}, got {excerpt(text)}")
        else:
            form, exponent = _SUFFIXES[suffix]
        digits = int(whole + fraction or "0")
        shift = 9 - len(fraction)
        if form is Format.BINARY_SI:
            nanos = min(_scaled(digits << exponent, shift), _LARGEST_BINARY)
            if 0 < nanos < NANOS_PER_UNIT:
                form = Format.DECIMAL_SI
        else:
            nanos = _scaled(digits, shift + exponent)
        return cls(-nanos if sign == "-" else nanos, form)

    @classmethod
    def of_json(cls, value: Any) -> Quantity:
        """Return the quantity in a decoded JSON `value`: text (blanks around it are let pass), number or null.

        Null is zero. Raises `Malformed` for anything else.
        """
        if isinstance(value, str):
            return cls.parse(value.strip(" "))
        if value is None:
            return ZERO
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Malformed(f"expected a quantity as text or number, got {excerpt(value)}")
        if isinstance(value, int) and value.bit_length() > LONGEST_TEXT * 4:
            raise Malformed(f"expected a quantity of at most {LONGEST_TEXT} digits")
        return cls.parse(str(value))

    @classmethod
    def of(cls, value: int, scale: int = 0, form: Format = Format.DECIMAL_SI) -> Quantity:
        """Return `value` times 10^`scale`, `scale` from -9."""
        return cls(_scaled(value, scale + 9), form)

    def scaled(self, scale: int = 0) -> int:
        """Return the amount in units of 10^`scale`, rounded away from zero: `scaled(-3)` counts millis."""
        return _scaled(self.nanos, -9 - scale)

    def round_up(self, scale: int) -> Quantity:
        """Return the nearest multiple of 10^`scale` that is not nearer to zero."""
        if scale <= -9:
            return self
        return Quantity(_scaled(_scaled(self.nanos, -9 - scale), scale + 9), self.format)

    @property
    def decimal(self) -> str:
        """The amount in plain decimal digits, exact: `0.25`, `1073741824`."""
        whole, rest = divmod(abs(self.nanos), NANOS_PER_UNIT)
        fraction = f"{rest:09d}".rstrip("0")
        return ("-" if self.nanos < 0 else "") + (f"{whole}.{fraction}" if fraction else str(whole))

    def __str__(self) -> str:
        """Return the canonical form: no fraction, the largest suffix that loses nothing."""
        if self.nanos == 0:
            return "0"
        sign, amount = ("-" if self.nanos < 0 else ""), abs(self.nanos)
        if self.format is Format.BINARY_SI and amount >= 1024 * NANOS_PER_UNIT:
            units, rest = divmod(amount, NANOS_PER_UNIT)
            if rest == 0:
                return sign + _written(units, 0, 1024, 10, Format.BINARY_SI)
        decimal = Format.DECIMAL_EXPONENT if self.format is Format.DECIMAL_EXPONENT else Format.DECIMAL_SI
        return sign + _written(amount, -9, 1000, 3, decimal)

    def __float__(self) -> float:
        """Return the nearest float, infinite where there is none."""
        try:
            return self.nanos / NANOS_PER_UNIT
        except OverflowError:
            return float("inf") if self.nanos > 0 else float("-inf")

    def __bool__(self) -> bool:
        """Tell whether the amount is not zero."""
        return self.nanos != 0

    def __add__(self, other: Quantity) -> Quantity:
        """Return the sum, in this format, or in `other`'s where this is zero."""
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        """Return the difference, in this format, or in `other`'s where this is zero."""
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __mul__(self, factor: int) -> Quantity:
        """Return the amount taken `factor` times."""
        return Quantity(self.nanos * factor, self.format)

    def __neg__(self) -> Quantity:
        """Return the amount with its sign turned."""
        return Quantity(-self.nanos, self.format)

    def __eq__(self, other: object) -> bool:
        """Compare the amounts."""
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        """Compare the amounts."""
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        """Hash the amount."""
        return hash(self.nanos)


ZERO: Final = Quantity(0)


def _scaled(value: int, exponent: int) -> int:
    """Return `value` times 10^`exponent`, rounded away from zero."""
    if exponent >= 0:
        return value * int(10**exponent)
    quotient, rest = divmod(abs(value), int(10**-exponent))
    away = quotient + (rest > 0)
    return away if value >= 0 else -away


def _written(amount: int, exponent: int, base: int, step: int, form: Format) -> str:
    """Write `amount`, moving factors of `base` into the suffix, each worth `step`."""
    while amount % base == 0 and (form is Format.DECIMAL_EXPONENT or (form, exponent + step) in _WRITTEN):
        amount //= base
        exponent += step
    if form is Format.DECIMAL_EXPONENT:
        return f"{amount}e{exponent}" if exponent else str(amount)
    return str(amount) + _WRITTEN.get((form, exponent), "")
