"""Say what the maximum length does to the rows: how long they are, and which are cut or left out."""

from __future__ import annotations

from finetune.data.checks.findings import Finding, Sighting, rows, some
from finetune.data.checks.material import Material


def check_lengths(material: Material) -> list[Finding]:
    """Find conversations longer than the maximum length; raw texts are cut into pieces, and nothing of them is lost."""
    count = len(material.left_out) + len(material.cut)
    if not count or material.max_length is None:
        return []
    lengths = material.lengths or {}
    kept = ", ".join(f"{name} {lengths[name]:,}" for name in ("median", "p95", "longest") if name in lengths)
    parts = [
        *([f"{len(material.left_out):,} are left out"] if material.left_out else []),
        *([f"of {len(material.cut):,} the prompt is cut from its start"] if material.cut else []),
    ]
    return [
        Finding(
            kind="over_long",
            severity="warning",
            count=count,
            what=f"{rows(count)} longer than max_length {material.max_length:,}: {' and '.join(parts)}"
            + (f" (training rows in tokens, after that: {kept})" if kept else ""),
            examples=some(
                [
                    *(Sighting(str(bad.origin), bad.detail) for bad in material.left_out),
                    *(Sighting(str(example.origin), "cut") for example in material.cut),
                ]
            ),
            fix="raise data.max_length where the model and the memory allow it",
        )
    ]
