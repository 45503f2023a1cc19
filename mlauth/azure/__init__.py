"""As whom mlauth asks Azure; stores and systems use it."""
