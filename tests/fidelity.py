"""The fidelity report: which comparisons prove each method, how close they are, and which mutants they catch.

A pytest plugin. ``pytest tests/golden tests/maths --fidelity FILE`` writes it; tests say what they prove with
``@pytest.mark.proves`` and ``@pytest.mark.mutant``.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

HEAD = """# Fidelity

What each method is compared with, how close it comes, and what the comparison would notice. Written by
`make fidelity`, which runs every comparison below; a test checks that no method is missing.

- **official**: values that the official implementation gave on the same inputs, `owner/repo@commit:file:function`.
  Whole steps compare adversarial examples, loss, gradients, weights and batch-norm buffers. The largest absolute
  difference over all compared numbers stands beside; each case has its own tolerance, wider only where the official
  code rounds a constant to float32. What is far below 1e-10 is rounding, and another one on another processor.
- **by hand**: the formula written out literally in the test, a worked example, or an identity.
- **mutants**: the method without what sets it apart; each fails the comparison.
"""


class Report:
    """Collects what the marked tests found."""

    def __init__(self, path: Path) -> None:
        self.path, self.failed = path, False
        self.official: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.by_hand: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.mutants: dict[str, list[str]] = defaultdict(list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Any:
        tiny = sys.modules.get("tiny")
        if tiny is not None:
            tiny.DIFFERENCES.clear()
        try:
            outcome = yield
        except BaseException:
            self.failed = True
            raise
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        name = getattr(item, "originalname", item.name)
        for mark in item.iter_markers("proves"):
            case = parameters.get("case")
            for slug in mark.args or [parameters["slug"]]:
                if isinstance(case, dict) and tiny is not None and tiny.DIFFERENCES:
                    self.official[slug][case["source"]].append(max(tiny.DIFFERENCES))
                else:
                    self.by_hand[slug][name.removeprefix("test_").replace("_", " ")] += 1
        for mark in item.iter_markers("mutant"):
            slug = mark.args[0] if mark.args else parameters["slug"]
            self.mutants[slug].append(_described(parameters, name))
        return outcome

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.failed or session.testsfailed:
            print("\nfidelity: not written, a comparison failed")
            return
        self.path.write_text(self.text(), encoding="utf-8")
        print(f"\nfidelity: wrote {self.path}")

    def text(self) -> str:
        """The report as Markdown."""
        from ltrobust_bench.cards import methods, plugins

        lines = [HEAD]
        for slug in [*methods.names(), *plugins.names()]:
            card = (methods if slug in methods else plugins).get(slug).card
            lines += [f"## {slug}", "", f"{card.title}. {card.summary}", ""]
            if self.official[slug]:
                lines += ["| official function | cases | largest difference |", "|---|---|---|"]
                for source, found in sorted(self.official[slug].items()):
                    lines.append(f"| `{source}` | {len(found)} | {max(found):.1e} |")
                lines.append("")
            hand = [f"{name} ({n})" if n > 1 else name for name, n in sorted(self.by_hand[slug].items())]
            if hand:
                lines += [f"By hand: {'; '.join(hand)}.", ""]
            lines += [f"Mutants caught: {'; '.join(dict.fromkeys(self.mutants[slug]))}.", ""]
        return "\n".join(lines)


def _described(parameters: dict[str, Any], name: str) -> str:
    """What a mutant lacks, in words."""
    changed = parameters.get("mutant") or parameters.get("options")
    if isinstance(changed, str):
        return changed
    if isinstance(changed, dict):
        return ", ".join(f"`{k}={v}`" for k, v in changed.items())
    return {
        "test_mutant_at_without_attack_is_caught": "no attack",
        "test_reat_mutant_without_attack_weights_is_caught": "plain cross-entropy in the attack",
        "test_awp_mutant_is_caught": "`awp.gamma=0.0`",
        "test_fairness_mutant_is_caught": "the same radius and weight for every class",
    }[name]
