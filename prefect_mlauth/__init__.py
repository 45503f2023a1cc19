"""mlauth for Prefect: pull steps (`prefect_mlauth.steps`)."""
