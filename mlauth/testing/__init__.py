"""Contract suites for stores and systems: for those of mlauth, and for those of other packages.

The modules of this package need pytest, which mlauth does not install.
"""
