"""What is counted of labels that were asked in bfloat16 first (`mutation.cascade`)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass
class Audit:
    """Counts of rows: asked in bfloat16 ``first``, ``again`` for a doubt, ``audited`` without one.

    ``disagreed``: audited labels that differed. ``bound``: the largest one in use.
    """

    first: int = 0
    again: int = 0
    audited: int = 0
    disagreed: int = 0
    bound: float = 0.0

    def add(self, other: Audit) -> None:
        for name in ("first", "again", "audited", "disagreed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bound = max(self.bound, other.bound)

    def taken(self) -> Audit:
        """What has been counted since this was last asked."""
        counted = replace(self)
        for field in fields(self):
            setattr(self, field.name, field.default)
        return counted

    def as_counts(self) -> dict[str, float]:
        """For a manifest; nothing where no row was asked in bfloat16."""
        if not self.first:
            return {}
        return {
            "bfloat16_labels": self.first,
            "asked_again": self.again,
            "audited": self.audited,
            "disagreed": self.disagreed,
            "largest_bound": round(self.bound, 4),
        }
