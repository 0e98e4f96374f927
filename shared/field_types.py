"""Field types of the wire contracts and the ledger entries."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
MAX_LABEL_CHARS = 256
# PostgreSQL cannot store NUL, so both stores reject it
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS, pattern=r"^[^\x00]*$")]
Word = Annotated[str, Field(max_length=64, pattern=r"^[^\x00]*$")]
