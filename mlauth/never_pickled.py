"""What holds a secret value is refused by pickle, which would write the value out in clear."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class NeverPickled:
    """Cannot be pickled or copied: Prefect, for one, pickles results of tasks into files."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds secret values, which pickle would write out in clear: "
            "hand the secret's reference on instead"
        )
