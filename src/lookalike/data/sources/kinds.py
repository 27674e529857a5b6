"""Which types of columns a collection stores, and as what: a closed list."""

from typing import Any

import pyarrow as pa
from pyarrow import types

_SAME = (
    *(types.is_null, types.is_boolean, types.is_integer, types.is_float32, types.is_float64, types.is_string),
    *(types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_date, types.is_time32),
    *(types.is_decimal128, types.is_decimal256),
)
_AS: tuple[tuple[Any, Any], ...] = (
    (types.is_float16, pa.float32()),
    (types.is_large_string, pa.string()),
    (types.is_string_view, pa.string()),
    (types.is_binary_view, pa.binary()),
    (types.is_time64, pa.time64("us")),  # Python's own times know no nanoseconds
    (types.is_duration, pa.duration("us")),
)
_LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)


def stored_type(kind: Any) -> Any:
    """The type in which values of type `kind` are stored and can be shown; None if they can't."""
    if any(fits(kind) for fits in _SAME):
        return kind
    for fits, stored in _AS:
        if fits(kind):
            return stored
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    if types.is_dictionary(kind):
        return stored_type(kind.value_type)
    return _nested(kind)


def _nested(kind: Any) -> Any:
    if types.is_struct(kind) and kind.num_fields:
        inner = [_inner(field.type) for field in kind]
        names = [field.name for field in kind]
        return None if any(k is None for k in inner) else pa.struct(list(zip(names, inner, strict=True)))
    if types.is_map(kind):
        key, item = _inner(kind.key_type), _inner(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if is_list(kind):
        return None if (item := _inner(kind.value_type)) is None else pa.list_(item)
    return None


def _inner(kind: Any) -> Any:
    return pa.string() if types.is_null(kind) else stored_type(kind)


def is_list(kind: Any) -> bool:
    """Whether values are lists, of any length or all of one."""
    return any(fits(kind) for fits in _LISTS)


def common_type(kind: Any, into: Any) -> Any:
    """The type of a column of type `into` that takes values of `kind`; None if it can't.

    Nothing fits everywhere; whole numbers fit among fractions, and lists among lists of the same.
    """
    if kind == pa.null() or kind == into or (types.is_integer(kind) and types.is_floating(into)):
        return into
    if is_list(kind) and is_list(into) and kind.value_type == into.value_type:
        return into
    return kind if into == pa.null() else None
