"""Stop strings, applied to a text that was generated with or without them."""

from collections.abc import Iterable


def before_stops(text: str, stops: Iterable[str]) -> str:
    """Return what stands before the first of the stop strings, all of the text where there is none."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
