"""What pictures say without labels, and which labels look wrong: one page for a person and a table for tools."""

from __future__ import annotations

from evaluation.look.run import Look, look

__all__ = ["Look", "look"]
