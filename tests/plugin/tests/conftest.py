import pytest

pytest.register_assert_rewrite("mlauth.testing.stores", "mlauth.testing.systems")
