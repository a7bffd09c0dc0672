"""What all sections of options share: the base class, and types of values."""

from typing import Annotated, Any, Literal

import pydantic

Component = dict[str, Any]
Bits = Annotated[int, pydantic.Field(ge=2, le=8)]
BitsOrFull = Bits | Literal[32]
"""Bits of weights or of activations apart: 32 leaves them in full precision."""
Positive = Annotated[int, pydantic.Field(ge=1)]


class Section(pydantic.BaseModel):
    """A section of options: keys that it does not have are refused, and defaults are checked, too."""

    # pydantic before 2.10 would warn of `model_type`, whose beginning it keeps for itself
    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True, protected_namespaces=())
