"""Numbers and lists in the sentences and tables of a page. Numbers have a real minus sign."""

from __future__ import annotations

from collections.abc import Sequence

NBSP = "\u00a0"


def signed(value: float, digits: int = 1) -> str:
    """A number with its sign: +1.5, −0.3."""
    return f"{value:+.{digits}f}".replace("-", "−")


def percent(share: float, digits: int = 0) -> str:
    """A share in per cent: 0.25 as "25 %", with a space that does not break."""
    return f"{100 * share:.{digits}f}{NBSP}%".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """One or more names as "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def unbroken(text: str) -> str:
    """A text without line breaks at hyphens and spaces, for a narrow column."""
    return text.replace("-", "\u2011").replace(" ", NBSP)


def power_of_ten(value: float, digits: int = 0) -> str:
    """A number as a power of ten, with so many digits after the point: 5 × 10⁻⁷; 0 as "0"."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa.replace('-', '−')}{NBSP}×{NBSP}10{power}"
