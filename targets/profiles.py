"""``shapes`` of the kinds that run on TensorRT: which shapes of dynamic inputs it makes its engines for.

Without them TensorRT builds its engine anew, for minutes, whenever a shape is outside of all before it.
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html (Explicit shape range)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shipway.registry.errors import ConfigError
from shipway.registry.nouns import TensorSpec

Shape = tuple[Annotated[int, Field(ge=1)], ...]


class Profile(BaseModel):
    """Shapes of one input that TensorRT makes its engine for: smallest, usual and largest, of one rank."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Shape
    opt: Shape
    max: Shape

    @model_validator(mode="after")
    def _ordered(self) -> Profile:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError("min, opt and max must have as many dimensions as each other")
        if not all(
            low <= usual <= high for low, usual, high in zip(self.min, self.opt, self.max, strict=True)
        ):
            raise ValueError("each dimension must rise from min over opt to max")
        return self


Shapes = Annotated[
    dict[str, Profile], Field(description="min, opt and max shape of dynamic inputs, for TensorRT")
]


def check_shapes(shapes: Mapping[str, Profile], inputs: Sequence[TensorSpec]) -> None:
    """Raise ConfigError where ``shapes`` names what is no input of the model, or gives one another rank."""
    known = {spec.name: spec for spec in inputs}
    for name, profile in shapes.items():
        if name not in known:
            raise ConfigError(
                f"shapes: the model has no input {name!r}.",
                why=f"Its inputs are {', '.join(sorted(known))}.",
                remedy="Correct 'shapes' of the target in deploy.yaml.",
            )
        if len(profile.min) != len(known[name].shape):
            raise ConfigError(
                f"shapes.{name} has {len(profile.min)} dimensions, the input {len(known[name].shape)}.",
                remedy="Correct 'shapes' of the target in deploy.yaml.",
            )


def profile_options(shapes: Mapping[str, Profile]) -> dict[str, str]:
    """``x:1x3x48x32,y:...`` for each of min, opt and max, as both Triton and ONNX Runtime want them."""
    return {
        f"trt_profile_{bound}_shapes": ",".join(
            f"{name}:{'x'.join(map(str, getattr(profile, bound)))}"
            for name, profile in sorted(shapes.items())
        )
        for bound in ("min", "opt", "max")
        if shapes
    }
