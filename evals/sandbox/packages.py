"""Encode and rebuild values of NumPy, pandas and SymPy; a package is imported only when a program uses it."""

import sys
from typing import Any


def dtype_of(value: Any) -> str:
    """Return an array's dtype as text.

    Raises:
        TypeError: arrays of this dtype cannot be sent.
    """
    if value.dtype.fields or value.dtype.kind not in "biufcSUO":
        raise TypeError(f"an array of {value.dtype}")
    return str(value.dtype.str)


def make_array(dtype: str, shape: Any, items: list[Any] | None) -> Any:
    """Return a NumPy array of `items`, or of zeros if None."""
    import numpy

    kind = numpy.dtype(dtype)
    if kind.fields or kind.kind not in "biufcSUO":
        raise ValueError(f"an array of {dtype[:20]}")
    if items is None:
        return numpy.zeros(tuple(shape), kind)
    if kind.kind != "O":
        return numpy.array(items, kind).reshape(shape)
    array = numpy.empty(len(items), kind)
    array[:] = items
    return array.reshape(shape)


def make_frame(kind: Any, columns: list[Any], index: list[Any], series: list[Any]) -> Any:
    """Return a pandas DataFrame (`kind`); column names may repeat."""
    frame = kind({number: each.to_numpy() for number, each in enumerate(series)}, index=index)
    frame = frame.astype({number: each.dtype for number, each in enumerate(series)})
    frame.columns = columns
    return frame


def numpy_scalar(value: Any) -> list[Any] | None:
    """Return type name and plain value of a NumPy scalar, or None for any other value."""
    numpy = sys.modules.get("numpy")
    kind = type(value)
    if numpy is None or getattr(numpy, kind.__name__, None) is not kind or not issubclass(kind, numpy.generic):
        return None
    return [kind.__name__, value.item()] if kind.__name__ not in ("datetime64", "timedelta64", "void") else None


def make_numpy_scalar(name: str, item: Any) -> Any:
    """Return the NumPy scalar of a type name and a plain value."""
    import numpy

    kind = getattr(numpy, name)
    if not issubclass(kind, numpy.generic):
        raise ValueError(f"no scalar: {name[:20]}")
    return kind(item)


def sympy_parts(value: Any) -> list[Any] | None:
    """Return class name and arguments of a SymPy expression, or None for any other value."""
    sympy = sys.modules.get("sympy")
    kind = type(value)
    if sympy is None or not isinstance(value, sympy.Basic):
        return None
    if isinstance(value, sympy.Symbol):
        return ["Symbol", [value.name, value._assumptions_orig]] if kind is sympy.Symbol else None
    if isinstance(value, sympy.Integer):
        return ["Integer", [int(value)]]
    if isinstance(value, sympy.Rational):
        return ["Rational", [int(value.p), int(value.q)]]
    if isinstance(value, sympy.Float):
        return ["Float", [str(value), int(value._prec)]]
    name = kind.__name__
    singleton = next(
        (each for each in ("oo", "zoo", "nan", "pi", "E", "I", "true", "false") if value is getattr(sympy, each)), None
    )
    if singleton or value == -sympy.oo:
        return [singleton or "-oo", []]
    return [name, list(value.args)] if getattr(sympy, name, None) is kind and value.args else None


def make_sympy(name: str, arguments: list[Any]) -> Any:
    """Rebuild a SymPy expression; parse nothing, and call no classes but SymPy's."""
    import sympy

    if name == "Symbol":
        text, assumptions = arguments
        return sympy.Symbol(str(text), **{str(key): item is True for key, item in assumptions.items()})
    if name == "Float":
        return (
            sympy.Float(float(arguments[0]))
            if arguments[1] == 53
            else sympy.Float(str(arguments[0]).strip(), precision=int(arguments[1]))
        )
    if name in ("Integer", "Rational"):
        return getattr(sympy, name)(*(int(each) for each in arguments))
    if not arguments:
        return {"oo": sympy.oo, "-oo": -sympy.oo, "zoo": sympy.zoo, "nan": sympy.nan, "pi": sympy.pi, "E": sympy.E,
                "I": sympy.I, "true": sympy.true, "false": sympy.false}[name]  # fmt: skip
    kind = getattr(sympy, name)
    if not (isinstance(kind, type) and issubclass(kind, sympy.Basic)):
        raise ValueError(f"no expression: {name[:20]}")
    if not all(isinstance(each, sympy.Basic) for each in arguments):
        raise ValueError("an expression has arguments that are none")
    return kind(*arguments, evaluate=False) if issubclass(kind, sympy.Add | sympy.Mul | sympy.Pow) else kind(*arguments)
