"""Plans are data: what is wanted and what is there give the steps, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from deploy_scene import bundle
from hypothesis import given
from hypothesis import strategies as st
from records import manifest

from shipway.registry.config.project import Project
from shipway.registry.deploy.plan import Found, Plan, Seen, Wanted
from shipway.registry.deploy.planning import plan_promotion
from shipway.registry.deploy.waves import waves
from shipway.registry.nouns import Digest, File
from shipway.targets.deliveries.base import AT_ONCE
from shipway.targets.steps import (
    Command,
    Gate,
    Hold,
    Patch,
    Point,
    Pointer,
    Prune,
    Release,
    Reuse,
    Seal,
    Send,
    Stage,
)

FILES = tuple(File(name, Digest.of(name.encode()), 10) for name in ("a", "b", "c"))
RELEASE = Release(manifest(FILES, version=2, graph="a"))
OLD = Pointer("prod", "one", 4, "ocr", 1, Digest.of(b"old"), "ocr-1-old")
NEW = Pointer("prod", "one", 4, "ocr", 2, RELEASE.bundle, RELEASE.id)
FOUND = Found(pointer=OLD, placed=False, releases=(OLD.release,))
FRESH = Seen(serial=4, live=OLD, hosts={"": FOUND})


def seen(found: Found = FOUND, **more: object) -> Seen:
    """A destination that is no fleet."""
    return replace(FRESH, hosts={"": found}, **more)  # type: ignore[arg-type]


def plan(there: Seen, **options: object) -> Plan:
    want = Wanted("one", RELEASE, **options)  # type: ignore[arg-type]
    return plan_promotion("promote", "prod", [want], {"one": there})


def shape(plan: Plan) -> str:
    """``Stage Send:a Seal Point``: the steps' kinds, with the file's path where there is one."""
    steps = [task.step for task in plan.tasks]
    return " ".join(
        type(step).__name__ + (f":{step.file.path}" if isinstance(step, Send | Reuse | Patch) else "")
        for step in steps
    )


def test_a_fresh_release_is_staged_sent_sealed_pointed_and_gated() -> None:
    made = plan(FRESH)
    assert shape(made) == "Stage Send:a Send:b Send:c Seal Point Gate"
    (move,) = made.moves
    assert (move.serial, move.before, move.send, move.unchanged) == (5, OLD, 30, False)


def test_what_the_destination_holds_is_reused() -> None:
    made = plan(seen(replace(FOUND, held=frozenset({FILES[1].digest}))))
    assert shape(made) == "Stage Reuse:b Send:a Send:c Seal Point Gate"
    assert made.send == 20


def file(path: str, content: str, size: int = 100_000) -> File:
    return File(path, Digest.of(f"{content} {path}".encode()), size)


def test_weights_are_patched_where_a_host_holds_others_at_the_same_path() -> None:
    manifest = RELEASE.manifest
    files = (file("a.txt", "new"), file("b.onnx", "new"), file("c.onnx", "tiny", 1000))
    release = Release(replace(manifest, files=(*files, file("d.onnx.data", "new"))))
    likely = (file("b.onnx", "live", 7), file("b.onnx", "candidate"))
    old = (file("a.txt", "old"), file("c.onnx", "old"), file("e.onnx.data", "old"), *likely)
    hosts = {
        "line-1": replace(FOUND, bases=old),
        "line-2": FOUND,
        "line-3": replace(FOUND, bases=old, held=frozenset({files[1].digest})),
    }
    want = Wanted("one", release, waves=(tuple(hosts),))
    made = plan_promotion("promote", "prod", [want], {"one": replace(FRESH, hosts=hosts)})
    (patch,) = [task for task in made.tasks if isinstance(task.step, Patch)]
    assert patch.hosts == ("line-1",)
    assert patch.step == Patch(release, files[1], likely[0])
    assert str(patch) == f"one (line-1): patch b.onnx (of {likely[0].digest.short} there; at most 100000 B)"
    assert [task.hosts for task in made.tasks if isinstance(task.step, Send)] == [
        ("line-1", "line-2", "line-3"),
        ("line-1", "line-2", "line-3"),
        ("line-1", "line-2", "line-3"),
        ("line-2",),
    ]
    kinds = [type(task.step) for task in made.tasks]
    assert kinds[:3] == [Stage, Reuse, Patch]
    assert (made.patches, made.moves[0].patches, made.send) == (1, 1, 3 * 201_000 + 2 * 100_000)
    assert made.to_json()["patches"] == 1


def test_weights_at_another_path_are_found_by_their_name() -> None:
    """As in a model repository of Triton: ``models/ocr/2/model.onnx``."""
    wanted = file("models/ocr/2/model.onnx", "new")
    release = Release(replace(RELEASE.manifest, files=(wanted,)))
    other, named = file("models/ocr/1/other.onnx", "old"), file("models/ocr/1/model.onnx", "old")
    there = seen(replace(FOUND, bases=(other, named, replace(named, path="old/model.onnx"))))
    made = plan_promotion("promote", "prod", [Wanted("one", release)], {"one": there})
    assert made.tasks[1].step == Patch(release, wanted, named)


def test_a_placed_release_is_checked_and_sends_nothing() -> None:
    made = plan(seen(replace(FOUND, placed=True)), restores=1)
    assert shape(made) == "Seal Point Gate"
    assert made.send == 0
    assert made.moves[0].restores == 1


def test_activation_comes_before_the_pointer_and_gates_after_it() -> None:
    activation = (Command(RELEASE, ("build",), "engine"),)
    made = plan(FRESH, activation=activation, gates=(("check", {}), ("command", {"argv": ["x"]})))
    assert shape(made) == "Stage Send:a Send:b Send:c Seal Command Point Gate Gate Gate"
    gates = [task.step for task in made.tasks if isinstance(task.step, Gate)]
    assert [gate.name for gate in gates] == ["digests", "check", "command"]
    assert gates[2].options["argv"] == ["x"]
    assert gates[2].options["deployment"]["serial"] == 5


def test_what_is_live_and_in_place_is_left_alone() -> None:
    made = plan(seen(Found(NEW, placed=True), live=NEW))
    assert made.tasks == ()
    assert made.changes == ()
    assert (made.moves[0].unchanged, made.moves[0].serial) == (True, 4)


@pytest.mark.parametrize(
    "there",
    [
        {"placed": False},  # its files were removed
        {"placed": True, "damaged": True},  # a byte was changed
        {"placed": True, "pointer": None},  # the pointer was removed
        {"placed": True, "pointer": OLD},  # somebody moved the pointer back by hand
    ],
)
def test_what_is_live_by_the_ledger_alone_is_put_right(there: dict[str, object]) -> None:
    made = plan(seen(replace(replace(FOUND, pointer=NEW), **there), live=NEW))  # type: ignore[arg-type]
    assert "Seal Point Gate" in shape(made)
    assert made.moves[0].serial == 5


def test_pruning_spares_live_candidate_and_the_kept() -> None:
    there = seen(
        replace(FOUND, releases=("bad", "ocr-1-old", "older", "oldest", "ancient", RELEASE.id)),
        chain=("ocr-1-old", "older", "oldest", "ancient"),
    )
    pruned = [task.step for task in plan(there, keep=1).tasks if isinstance(task.step, Prune)]
    assert pruned == [Prune("bad"), Prune("oldest"), Prune("ancient")]


def test_no_pointer_moves_before_every_release_is_in_place_and_nothing_is_pruned_before_every_gate() -> None:
    wanted = [Wanted(target, RELEASE, keep=1, gates=(("check", {}),)) for target in ("one", "two")]
    there = seen(replace(FOUND, releases=("bad", "ocr-1-old")), chain=("ocr-1-old",))
    made = plan_promotion("promote", "prod", wanted, {"one": there, "two": replace(there, serial=9)})
    kinds = [type(task.step) for task in made.tasks]
    last_seal = max(index for index, kind in enumerate(kinds) if kind is Seal)
    assert last_seal < kinds.index(Point)
    last_gate = max(index for index, kind in enumerate(kinds) if kind is Gate)
    assert last_gate < kinds.index(Prune)
    assert [move.serial for move in made.moves] == [5, 10]


@given(st.data())
def test_whatever_is_there_the_rules_hold(data: st.DataObject) -> None:
    names = [OLD.release, RELEASE.id, "x", "y", "z"]
    found = Found(
        pointer=data.draw(st.sampled_from([None, OLD, NEW])),
        placed=data.draw(st.booleans()),
        damaged=data.draw(st.booleans()),
        held=frozenset(data.draw(st.sets(st.sampled_from([file.digest for file in FILES])))),
        releases=tuple(data.draw(st.lists(st.sampled_from(names), unique=True))),
    )
    there = Seen(
        serial=data.draw(st.integers(0, 9)),
        live=data.draw(st.sampled_from([None, OLD, NEW])),
        hosts={"": found},
        chain=data.draw(st.none() | st.lists(st.sampled_from(names), unique=True).map(tuple)),
    )
    keep = data.draw(st.integers(1, 3))
    made = plan(there, keep=keep)
    steps = [task.step for task in made.tasks]
    pruned = {step.release for step in steps if isinstance(step, Prune)}
    assert not pruned & {RELEASE.id, *(found.releases if there.chain is None else there.chain[: keep + 1])}
    assert not pruned & {pointer.release for pointer in (there.live, found.pointer) if pointer}
    if not made.moves[0].unchanged:
        points = [index for index, step in enumerate(steps) if isinstance(step, Point)]
        assert len(points) == 1
        assert any(isinstance(step, Seal) for step in steps[: points[0]])
        assert steps[points[0] + 1] == Gate(RELEASE, "digests", {})
        sent = {step.file for step in steps if isinstance(step, Send | Reuse)}
        assert sent == (set() if found.placed else set(FILES))
        assert any(isinstance(step, Stage) for step in steps) == (not found.placed)


# fleets

HOSTS = ("a", "b", "c", "d")


def fleet(**found: Found) -> Seen:
    """Four hosts; those that are not named have nothing of the release."""
    return replace(FRESH, hosts={name: found.get(name, FOUND) for name in HOSTS})


def told(plan: Plan) -> list[str]:
    """``Point:a,b``: the steps' kinds and hosts; a run of the same on one line."""
    steps = [f"{type(task.step).__name__}:{','.join(task.hosts)}" for task in plan.tasks]
    return [step for step, before in zip(steps, [None, *steps[:-1]], strict=True) if step != before]


def test_a_wave_is_placed_pointed_and_gated_before_the_next_one() -> None:
    assert told(plan(fleet(), waves=(("a",), ("b", "c", "d")))) == [
        "Stage:a",
        "Send:a",
        "Seal:a",
        "Point:a",
        "Gate:a",
        "Stage:b,c,d",
        "Send:b,c,d",
        "Seal:b,c,d",
        "Point:b,c,d",
        "Gate:b,c,d",
    ]


def test_each_host_is_sent_what_it_lacks_and_no_more() -> None:
    some, all_of_it = frozenset({FILES[0].digest}), replace(FOUND, placed=True)
    there = fleet(b=replace(FOUND, held=some), c=all_of_it)
    made = plan(there, waves=(HOSTS,), activation=(Command(RELEASE, ("build",), "engine"),))
    assert told(made) == [
        "Stage:a,b,d",
        "Reuse:b",
        "Send:a,d",
        "Send:a,b,d",
        "Seal:a,b,c,d",
        "Command:a,b,c,d",
        "Point:a,b,c,d",
        "Gate:a,b,c,d",
    ]
    assert made.send == 30 + 20 + 0 + 30
    (move,) = made.moves
    assert move.fresh == {"a", "b", "c", "d"}


def test_a_large_wave_is_worked_on_in_groups_but_placed_before_it_is_pointed() -> None:
    hosts = tuple(f"h{number}" for number in range(AT_ONCE + 2))
    there = replace(FRESH, hosts={name: replace(FOUND, placed=True) for name in hosts})
    made = plan(there, waves=(hosts,))
    assert [(type(task.step).__name__, len(task.hosts)) for task in made.tasks] == [
        ("Seal", AT_ONCE),
        ("Seal", 2),
        ("Point", AT_ONCE),
        ("Gate", AT_ONCE),
        ("Point", 2),
        ("Gate", 2),
    ]


def test_what_is_between_waves_is_one_wait_and_one_question() -> None:
    waves = (("a",), ("b", "c"), ("d",))
    first = Wanted("one", RELEASE, waves=waves, pause=60.0)
    second = Wanted("two", RELEASE, waves=waves[:2], pause=90.0, confirm=True)
    made = plan_promotion("promote", "prod", [first, second], {"one": fleet(), "two": fleet()})
    assert [task.step for task in made.tasks if isinstance(task.step, Hold)] == [
        Hold(90.0, True, 2, 3),
        Hold(60.0, False, 3, 3),
    ]
    assert "one: wait 90 s and ask before wave 2 of 3" in str(made)


def test_a_fleet_is_left_alone_only_where_every_host_is_right() -> None:
    right = Found(NEW, placed=True)
    there = replace(FRESH, live=NEW, hosts=dict.fromkeys(HOSTS, right))
    assert plan(there, waves=(HOSTS,)).tasks == ()
    for wrong in (replace(right, pointer=OLD), replace(right, placed=False), replace(right, damaged=True)):
        lagging = replace(there, hosts={**there.hosts, "c": wrong})
        made = plan(lagging, waves=(HOSTS,))
        assert made.moves[0].serial == 5
        assert made.moves[0].before == NEW
        assert told(made)[-1] == "Gate:a,b,c,d"


def test_each_host_keeps_what_it_has_live_and_is_pruned_of_the_rest() -> None:
    chain = ("ocr-1-old", "older")
    lagging = replace(OLD, release="ancient", serial=1)
    there = replace(
        FRESH,
        chain=chain,
        hosts={
            "a": replace(FOUND, releases=("ocr-1-old", "older", "ancient")),
            "b": replace(FOUND, pointer=lagging, releases=("older", "ancient", "bad")),
        },
    )
    made = plan(there, waves=(("a", "b"),), keep=1)
    pruned = {(task.step, task.hosts) for task in made.tasks if isinstance(task.step, Prune)}
    assert pruned == {(Prune("ancient"), ("a",)), (Prune("bad"), ("b",))}


@given(st.data())
def test_whatever_hosts_hold_each_goes_through_its_steps_in_order(data: st.DataObject) -> None:
    held = st.sets(st.sampled_from([file.digest for file in FILES])).map(frozenset)
    one = st.builds(Found, st.sampled_from([None, OLD, NEW]), st.booleans(), held=held)
    found = data.draw(st.lists(one, min_size=1, max_size=40))
    hosts = tuple(f"h{number}" for number in range(len(found)))
    there = Seen(4, OLD, dict(zip(hosts, found, strict=True)))
    cut = tuple(waves(hosts, data.draw(st.lists(st.integers(1, 9), max_size=3))))
    made = plan(there, waves=cut)
    for host, state in there.hosts.items():
        own = [task.step for task in made.tasks if host in task.hosts]
        files = [type(step) for step in own if isinstance(step, Send | Reuse)]
        placing = [] if state.placed else [Stage, *files]
        assert [type(step) for step in own] == [*placing, Seal, Point, Gate]
        assert files == [] if state.placed else sorted(files, key=[Reuse, Send].index)
        assert {step.file for step in own if isinstance(step, Send)} == (
            set() if state.placed else {file for file in FILES if file.digest not in state.held}
        )
    order = {host: number for number, wave in enumerate(cut) for host in wave}
    touched = [order[host] for task in made.tasks for host in task.hosts]
    assert touched == sorted(touched)  # no wave before the one in front of it is over
    assert all(len(task.hosts) <= AT_ONCE for task in made.tasks)


def test_a_plan_is_json_and_text(project: Project) -> None:
    manifest = bundle(project, 2)
    made = plan_promotion("promote", "prod", [Wanted("one", Release(manifest))], {"one": FRESH}, reason="why")
    data = json.loads(json.dumps(made.to_json()))
    assert data["bytes_to_send"] == made.send
    assert data["steps"][0]["step"] == "stage"
    assert data["targets"][0]["version"] == 2
    assert data["reason"] == "why"
    assert "one: send model/graph.onnx" in str(made)
