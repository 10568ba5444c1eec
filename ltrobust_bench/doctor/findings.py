"""What one section of the examination found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Findings:
    """Facts by name, and problems."""

    facts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def fact(self, name: str, value: object) -> None:
        """Something worth knowing."""
        self.facts[name] = str(value)

    def problem(self, text: str) -> None:
        """Something wrong, and what to do, in one line."""
        self.problems.append(" ".join(text.split()))
