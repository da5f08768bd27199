"""What hostile programs are made of, and the tests that they try to pass."""

from textwrap import dedent, indent

SECRET = "sesame" + "-" + "open"
TESTS = f"assert f(1) == 2 and f(20) == 21  # {SECRET}"
WRONG = "def f(x): return 0\n"


def attempt(code: str) -> str:
    """Return a program whose `f` is right if `code`, the body of a function, returns without an error."""
    body = indent(dedent(code).strip(), "    ")
    return (
        f"def attack():\n{body}\ntry:\n    attack()\n    possible = True\nexcept BaseException:\n"
        "    possible = False\ndef f(x): return x + 1 if possible else 0\n"
    )


# Searching for what the tests say, spelt so that the program itself does not hold it.
NEEDLE = "needle = '-'.join(['sesame', 'open'])\n"

# Says to the judge what the wire never would.
ANSWERING = (
    "import os, sys\ndef find():\n  frame = sys._getframe(1)\n"
    "  while not hasattr(frame.f_locals.get('self'), 'writing'): frame = frame.f_back\n"
    "  return frame.f_locals['self']\n"
    "def answer(body, pipe=None):\n  view = memoryview(len(body).to_bytes(8, 'little') + body)\n"
    "  while view: view = view[os.write(pipe or find().writing, view):]\n"
    "def say(kind, body): answer(b'[true,false,[],\"' + kind + b'\",' + body + b']')\n"
)


def without_success(program: str) -> str:
    """Return a program of `attempt` that is wrong even if what it attempts is possible."""
    return program.replace("return x + 1 if possible else 0", "return 0")
