"""Sizes and durations as people read them."""

MIB = 2**20  # bytes


def human_bytes(size: float | None) -> str | None:
    """Return a size as text, such as `12.3 GiB`, or None."""
    if size is None:
        return None
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def human_seconds(seconds: float | None) -> str | None:
    """Return a duration as text, such as `6 min 03 s`, or None."""
    if seconds is None:
        return None
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
