"""The identity with which mlauth asks Azure; stores and systems use it."""
