"""What a store or a system of another package is tested with, and ours too.

The modules of this package import pytest, which whoever runs them installs: mlauth does not.
"""
