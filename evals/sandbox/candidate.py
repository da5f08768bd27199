"""The process of the program under test: it runs the program's text, and then what the judge asks of its objects.

Nothing here is protected from the program, and nothing here needs to be: tests, nonce and verdict are elsewhere.
"""

import builtins
import operator
from collections.abc import Callable
from typing import Any

from evals.sandbox.wire import MANY_ITEMS, decode, encode, receive, send


def serve(reading: int, writing: int) -> None:
    """Answer the judge's requests until it is gone."""
    objects: list[Any] = []
    numbers: dict[int, int] = {}
    # As in the reference harness, the program has no `__name__`: what follows `if __name__ == "__main__":` is not run.
    namespace: dict[str, Any] = {}

    def refer(value: Any) -> dict[str, Any]:
        if id(value) not in numbers:
            numbers[id(value)] = len(objects)
            objects.append(value)  # which keeps it, so that its id stays its own
        return {"ref": numbers[id(value)]}

    def run(code: str) -> None:
        exec(code, namespace)

    def bound(name: str) -> bool:
        return name in namespace

    def take(name: str) -> Any:
        return namespace[name]

    def call(function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> Any:
        return function(*arguments, **keywords)

    def piece(items: Any, start: int, stop: int) -> list[Any]:
        return list(items[start:stop])

    requests: dict[str, Callable[..., Any]] = {
        "run": run,
        "bound": bound,
        "take": take,
        "call": call,
        "getattr": getattr,
        "setattr": setattr,
        "getitem": operator.getitem,
        "piece": piece,
        "iter": iter,
        "next": next,
        "len": len,
        "bool": bool,
        "str": str,
        "repr": repr,
    }
    answer: dict[str, Any]
    while True:
        try:
            name, *arguments = receive(reading)
        except EOFError:
            return
        try:
            result = requests[name](*(decode(argument, objects.__getitem__) for argument in arguments))
            if type(result) in (list, tuple) and len(result) >= MANY_ITEMS:
                answer = {"many": [refer(result)["ref"], len(result), type(result).__name__]}
            else:
                answer = {"value": encode(result, refer)}
        except BaseException as error:
            answer = {"error": [_names(error), _message(error)]}
        send(writing, answer)


def _names(error: BaseException) -> list[str]:
    """Return the names of the built-in types that an exception has, the nearest first."""
    kinds = type(error).__mro__
    return [kind.__name__ for kind in kinds if vars(builtins).get(kind.__name__) is kind]


def _message(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except BaseException:
        return ""
