"""What is counted of labels that were come by cheaply (`mutation.doubt`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace


@dataclass
class Counts:
    """Of labels come by in one way: how many at ``first``, asked ``again`` in float32 for a doubt,
    and ``audited`` without one.

    ``disagreed``: audited labels that differed. ``bound``: the largest one in use.
    """

    first: int = 0
    again: int = 0
    audited: int = 0
    disagreed: int = 0
    bound: float = 0.0

    def add(self, other: Counts) -> None:
        for name in ("first", "again", "audited", "disagreed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.bound = max(self.bound, other.bound)

    def taken(self) -> Counts:
        """What has been counted since this was last asked."""
        counted = replace(self)
        for each in fields(self):
            setattr(self, each.name, each.default)
        return counted

    def named(self, labels: str, before: str = "") -> dict[str, float]:
        """For a manifest; nothing where there were no such labels."""
        if not self.first:
            return {}
        return {
            labels: self.first,
            f"{before}asked_again": self.again,
            f"{before}audited": self.audited,
            f"{before}disagreed": self.disagreed,
            f"{before}largest_bound": round(self.bound, 4),
        }


@dataclass
class Audit:
    """Labels asked in ``bfloat16`` first, and those come by without asking: under ``light``, and
    with an ``occlusion``."""

    bfloat16: Counts = field(default_factory=Counts)
    light: Counts = field(default_factory=Counts)
    occlusion: Counts = field(default_factory=Counts)

    def add(self, other: Audit) -> None:
        for way in fields(self):
            getattr(self, way.name).add(getattr(other, way.name))

    def taken(self) -> Audit:
        """What has been counted since this was last asked."""
        return Audit(*(getattr(self, way.name).taken() for way in fields(self)))

    def as_counts(self) -> dict[str, float]:
        """For a manifest; nothing where every label was asked in float32."""
        counts = self.bfloat16.named("bfloat16_labels")
        counts |= self.light.named("light_labels", "light_")
        return counts | self.occlusion.named("occlusion_labels", "occlusion_")
