"""What can go wrong, in families by who must act.

Every error says what failed, why, and what to do. The command line maps each family to one exit code
(``shipway.registry.cli.failures``); a program that imports shipway catches the family it can act on.
A programming mistake is never a ``ShipwayError``: it stays a ``ValueError`` or a ``RuntimeError``.
"""

from __future__ import annotations


class ShipwayError(Exception):
    """A failure that a person can act on.

    ``what`` is one sentence about what failed, ``why`` the cause as far as it is known, ``remedy`` what to
    do about it. All three are plain text without a final newline; ``why`` may hold several lines.
    """

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(part for part in (self.what, self.why, self.remedy) if part)


class UsageError(ShipwayError):
    """The command was called wrongly: a malformed name or reference, options that exclude each other."""


class ConfigError(ShipwayError):
    """``deploy.yaml`` is wrong. ``what`` starts with the key's path and the file's line where known."""


class ConversionError(ShipwayError):
    """The model can't be converted for what was asked. Names the operator and the remedy."""


class UnsupportedModelError(ConversionError):
    """A target's runtime can't run the model: an operator, an opset, an IR version or the size."""


class VerificationError(ShipwayError):
    """The numbers are wrong: a link of the equivalence chain is outside its tolerance."""


class NotFoundError(ShipwayError):
    """No such model, version, bundle or release, or nothing to roll back to."""


class ConflictError(ShipwayError):
    """Somebody else is deploying, or won the race. Nothing was changed."""


class DeliveryError(ShipwayError):
    """Writing or a gate failed. What was live before is live again."""


class IntegrityError(ShipwayError):
    """A digest or a signature does not match what was recorded."""
