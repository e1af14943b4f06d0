"""Whether what is at a destination could serve, before anybody relies on it.

Three things can be said. Cheaply, from names and sizes: a release is there. By reading it back (``deep``): it
is there byte for byte. And where its environment has the gate ``check``: it loads there and gives the golden
outputs. The gates ``url`` and ``command`` judge what is live, so nothing can be said of them beforehand.

What is not there, or damaged, a rollback sends from the store; so it matters whether that has it.
"""

from __future__ import annotations

from collections.abc import Mapping

from shipway.registry.errors import DeliveryError, IntegrityError, NotFoundError
from shipway.registry.nouns import Digest
from shipway.registry.store.store import Store
from shipway.targets.deliveries.base import Delivery
from shipway.targets.manifest import Manifest
from shipway.targets.steps import Gate, Release

NAMED = 10  # hosts of a fleet, and files of a release, that a sentence names


def known(store: Store, bundle: Digest) -> Manifest | None:
    """The manifest of a bundle; None where the store has lost it."""
    try:
        return store.bundle(bundle)
    except (NotFoundError, IntegrityError):
        return None


def unready(host: Delivery, manifest: Manifest | None, store: Store, *, deep: bool, check: bool) -> str:
    """What keeps a rollback to ``manifest`` from being one switch of the pointer, or nothing."""
    if manifest is None:
        return "the store has lost its bundle, so that there is no way back to it"
    if not host.has(manifest):
        missing = [file.path for file in manifest.files if not store.has(file.digest)]
        if missing:
            return f"it is not at {host.address}, and the store has lost {listed(missing)}"
        return f"it is not at {host.address}; the store has it, so that a rollback sends it again"
    return damaged(host, manifest, check=check) if deep else ""


def damaged(host: Delivery, manifest: Manifest, *, check: bool) -> str:
    """What reading a release back finds, and with ``check`` its golden check; nothing where all is well."""
    difference = host.audit(manifest)
    if not difference.whole:
        return f"{manifest.release_id} is damaged at {host.address}: {difference}"
    if check:
        try:
            host.perform(Gate(Release(manifest), "check", {}))
        except DeliveryError as error:
            return f"{error.what} {error.why}".strip()
    return ""


def told(problems: Mapping[str, str]) -> str:
    """One sentence for all hosts, of a fleet or of a single destination (``""``)."""
    wrong = {name: problem for name, problem in problems.items() if problem}
    if not wrong or "" in wrong:
        return wrong.get("", "")
    first = next(iter(wrong.values()))
    return f"{len(wrong)} of {len(problems)} hosts are not ready: {listed(list(wrong))}. The first: {first}"


def listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
