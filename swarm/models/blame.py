"""Which fields of a model are to blame where it cannot be built or take a step: those without which it can."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from swarm.errors import InputError

BLAME_SECONDS = 30.0  # spent on finding it; after that the whole table is named
_HEADS = ("n_head", "n_heads", "num_attention_heads")
_KEY_HEADS = "num_key_value_heads"
_WIDTHS = ("n_embd", "dim", "hidden_size")
_COUNTS = ("n_inner", "n_layer", "n_layers", "hidden_dim", "intermediate_size", "num_hidden_layers")
_HEAD_WIDTH = 16  # even, as rotary positions ask
TABLE = "task.model.fields"

Fields = Mapping[str, Any]


def blamed(fields: Fields, attempt: Callable[[dict[str, Any]], object], said: str) -> InputError:
    """`said`, what went wrong with `fields`, of the field or fields whose change lets `attempt` end without an exception; of the whole
    table where none does, or none is found within `BLAME_SECONDS` (an attempt under way is waited for)."""
    found = guilty(fields, _bounded(attempt))
    if not found:
        return InputError(TABLE, dict(fields), f"{said}; leave out what you need not set")
    (first, other), *more = found.items()
    remedy = "leave it out" if other is None else f"take {other}"
    if more:
        those = " and ".join(f"{TABLE}.{name} = {fields[name]!r}" for name, _ in more[:3])
        return InputError(f"{TABLE}.{first}", fields[first], f"{said}; it does not go with {those}: change one of them")
    return InputError(f"{TABLE}.{first}", fields[first], f"{said}; {remedy}")


def guilty(fields: Fields, attempt: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Names of the fields of which one alone, changed, lets `attempt` end without an exception; or of those that have to be changed
    together. With the value that does, None where it is left out. Empty: none found. TimeoutError of `attempt` ends the search."""
    try:
        alone = {name: value for name in fields for value in _alone(fields, name, attempt)}
        return alone or _together(fields, attempt)
    except TimeoutError:
        return {}


def _alone(fields: Fields, name: str, attempt: Callable[[dict[str, Any]], object]) -> Iterator[Any]:
    """The first value in place of this field's own with which it ends well, if there is one."""
    for value in _others(fields, name):
        if _ends(_changed(fields, {name: value}), attempt):
            yield value
            return


def _together(fields: Fields, attempt: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Changed one after the other until it ends well; then each is tried as it was."""
    changes: dict[str, Any] = {}
    for name in fields:
        changes[name] = _others(fields, name)[-1]
        if _ends(_changed(fields, changes), attempt):
            break
    else:
        return {}
    for name in list(changes):
        rest = {other: value for other, value in changes.items() if other != name}
        if _ends(_changed(fields, rest), attempt):
            changes = rest
    return changes


def _others(fields: Fields, name: str) -> list[Any]:
    """What to try in place of a field's value. None: the family's own. That seldom fits the other sizes, so for these what follows
    from them, too."""
    heads = next((fields[each] for each in _HEADS if each in fields), 1)
    if name in _HEADS:
        return [None, *([fields[_KEY_HEADS]] if _KEY_HEADS in fields else []), 1]
    if name == _KEY_HEADS:
        return [None, heads, 1]
    if name in _WIDTHS:
        return [None, heads * _HEAD_WIDTH]
    return [None, 1] if name in _COUNTS else [None]


def _changed(fields: Fields, changes: Fields) -> dict[str, Any]:
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def _ends(fields: dict[str, Any], attempt: Callable[[dict[str, Any]], object]) -> bool:
    try:
        attempt(fields)
    except TimeoutError:
        raise
    except Exception:  # a model's code fails in whatever way its fields make it fail
        return False
    return True


def _bounded(attempt: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], object]:
    deadline = time.monotonic() + BLAME_SECONDS

    def bounded(fields: dict[str, Any]) -> object:
        if time.monotonic() > deadline:
            raise TimeoutError
        return attempt(fields)

    return bounded
