"""How often only the notation of a real tool has changed, and what the grades of real changes are.

Reads `tests/corpus/grades.json`, which `python -m tests.real.pairs` makes anew from the packages themselves: installing
24 pairs takes minutes and other people's servers. The rules are run here, on what is kept of the offers.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.report import Result, table
from mcp_registry.catalogue import fingerprint
from mcp_registry.ledger import grades

FIXTURE: Final = Path(__file__).parent.parent / "tests" / "corpus" / "grades.json"


def run() -> list[Result]:
    """Print the shares and the counts. There is no bar: what authors change is theirs."""
    rows = [["package", "old", "new", "tools in both", *fingerprint.Digests._fields, *grades.GRADES]]
    counts: Counter[str] = Counter()
    kinds: Counter[tuple[str, str]] = Counter()
    for pair in json.loads(FIXTURE.read_text()):
        before, after = (grades.Offer(**offer) for offer in pair["offers"])
        one, other = ({tool["name"]: tool for tool in offer.tools or ()} for offer in (before, after))
        both = one.keys() & other.keys()
        differs: Counter[str] = Counter()
        for name in both:
            digests = fingerprint.fingerprint(one[name]), fingerprint.fingerprint(other[name])
            differs.update(
                part for part in digests[0]._fields if getattr(digests[0], part) != getattr(digests[1], part)
            )
        changes = grades.compare(before, after)
        kinds.update((change.kind, change.grade) for change in changes)
        found = Counter(change.grade for change in changes if change.kind == "tool")
        counts += differs + Counter(both=len(both))
        rows.append(
            [
                *(pair[part] for part in ("package", "old", "new")),
                str(len(both)),
                *(str(differs[part]) for part in fingerprint.Digests._fields),
                *(str(found[grade]) for grade in grades.GRADES),
            ]
        )
    print(table(rows))
    notation = counts["raw"] - counts["prompt"]
    print(
        f"\nOf {counts['both']} tools in both releases {counts['raw']} differ in raw, {counts['prompt']} in prompt and "
        f"{counts['contract']} in contract: {notation} of {counts['raw']} raw changes ({notation / counts['raw']:.0%}) "
        "are notation.\n"
    )
    parts = [
        [kind, *(str(kinds[kind, grade]) for grade in grades.GRADES)] for kind in sorted({kind for kind, _ in kinds})
    ]
    print(table([["kind", *grades.GRADES], *parts]))
    return []
