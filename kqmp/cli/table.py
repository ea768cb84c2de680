"""Tables: aligned for people, with tabs for other programs. Pure."""

from collections.abc import Sequence

NOTHING = "-"


def aligned(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Write a table with columns as wide as their widest cell; numbers stand to the right.

    Args:
        header: titles of the columns.
        rows: their cells; integers get thousands separators, None a dash.
    """
    texts = [[_for_people(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[index], int | float | None) for row in rows)
        for index in range(len(header))
    ]
    return [
        "  ".join(
            text.rjust(width) if is_right else text.ljust(width)
            for text, width, is_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (header, *texts)
    ]


def tabbed(rows: Sequence[Sequence[object]]) -> list[str]:
    """Write rows without a header; numbers as digits, None as a dash."""
    return ["\t".join(_for_programs(cell) for cell in row) for row in rows]


def _for_people(cell: object) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:,.1f}" if isinstance(cell, float) else _for_programs(cell)


def _for_programs(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.3f}"
    if isinstance(cell, tuple):
        return ",".join(map(str, cell))
    return NOTHING if cell is None else str(cell)
