# Made by `make docs` from the models in mlauth/systems.
from typing import Literal

from prefect_mlauth.blocks.login import Login

__all__ = ["ZenMLCredentials"]

class ZenMLCredentials(Login):
    store_url: str
    api_key: str
    service_account: str | None = None
    stack: str | None = None
    project: str | None = None
    credential: Literal["api_key", "api_token"] = "api_key"
    ca_bundle: str | None = None
    allow_insecure: bool = False
    verify: bool = True
    timeout: float = 30.0
