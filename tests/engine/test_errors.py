from __future__ import annotations

import inspect

import pytest

from engine import errors
from engine.errors import ApexError

DEFINED = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}


def drawn() -> dict[str, str | None]:
    """Name -> parent of the tree drawn in the module's docstring; the depth of a name is where it stands in its line."""
    tree: dict[str, str | None] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ").split()
        if not words or not words[0].endswith("Error"):
            continue
        depth = line.index(words[0])
        above = [(d, name) for d, name in above if d < depth]
        tree[words[0]] = above[-1][1] if above else None
        above.append((depth, words[0]))
    return tree


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    code = {name: value.__base__.__name__ for name, value in DEFINED.items() if value is not ApexError}
    assert drawn() == {"ApexError": None, **code}


@pytest.mark.parametrize("error", DEFINED.values(), ids=list(DEFINED))
def test_one_except_catches_them_all_and_keeps_the_sentence(error: type[ApexError]) -> None:
    with pytest.raises(ApexError, match="a sentence"):
        raise error("a sentence")


def test_none_of_them_hides_behind_an_error_of_python() -> None:
    """`except ValueError` or `except OSError` around a call must not swallow what is meant for the user."""
    assert not any(issubclass(error, (ValueError, OSError, LookupError, RuntimeError)) for error in DEFINED.values())


def test_the_first_line_of_an_error_or_its_kind() -> None:
    assert errors.first_line(OSError("\n no room\nat all")) == "no room"
    assert errors.first_line(RuntimeError()) == "RuntimeError"
