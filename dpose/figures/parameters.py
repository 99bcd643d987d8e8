"""The check of a notebook's parameters."""

from __future__ import annotations

import ast
import difflib
import sys


def check_parameters() -> None:
    """Refuse parameters of papermill that the notebook does not have.

    Call it from the second code cell of a notebook, whose first one assigns the default values. papermill
    inserts its values between the two, as a cell that begins with "# Parameters". Without such a cell, and
    outside of IPython, nothing is checked.

    Raises:
        ValueError: a name that the first cell does not assign, or a value of another type than the default
            one. An int is accepted for a float, and anything where the default value is None.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell is None:
        return
    cells = [cell for cell in shell.user_ns["In"] if cell.strip()]
    given = {name: value for cell in cells[1:] if is_injected(cell) for name, value in assigned(cell).items()}
    if not given or is_injected(cells[0]):
        return
    declared = assigned(cells[0])
    unknown = sorted(given.keys() - declared.keys())
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], declared, n=1, cutoff=0)
        guess = f"; did you mean {nearest[0]}?" if nearest else "."
        names = ", ".join(declared)
        raise ValueError(
            f"this notebook has no parameter {', '.join(unknown)}{guess} Its parameters: {names}"
        )
    for name in given:
        default, value = ast.literal_eval(declared[name]), shell.user_ns[name]
        allowed = (int, float) if type(default) is float else (type(default),)
        if default is not None and type(value) not in allowed:
            raise ValueError(
                f"the parameter {name} is {value!r}, of type {type(value).__name__}; "
                f"it must be of type {type(default).__name__}, as its default value {default!r}"
            )


def is_injected(cell: str) -> bool:
    """Whether a cell is papermill's."""
    return cell.startswith("# Parameters")


def assigned(cell: str) -> dict[str, ast.expr]:
    """The names that a cell assigns, with the expressions assigned to them."""
    statements = [statement for statement in ast.parse(cell).body if isinstance(statement, ast.Assign)]
    return {target.id: statement.value for statement in statements for target in statement.targets}
