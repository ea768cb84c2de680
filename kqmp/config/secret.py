"""A value that never shows itself: passwords in configuration objects."""

from __future__ import annotations

MASK = "***"


class Secret:
    """Text that no `repr`, `str`, f-string, `%s` or serializer shows; only `reveal()` gives it.

    Not a subclass of `str` on purpose: joined, concatenated or handed to a JSON encoder it fails
    instead of leaking. It is false when the text is empty, and it pickles.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        """Hide `text`."""
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self._text else "Secret('')"

    def __str__(self) -> str:
        return MASK if self._text else ""
