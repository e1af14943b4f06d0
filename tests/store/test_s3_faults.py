"""S3 through a bad network and with a sick service: nothing wrong is kept, nothing is sent twice in vain."""

from __future__ import annotations

import datetime
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.errors import DeliveryError, IntegrityError
from shipway.registry.nouns import Digest
from shipway.registry.s3 import transfer
from shipway.registry.s3.bucket import Patience, Service
from shipway.registry.s3.conditions import Conditions
from shipway.registry.store.s3 import S3Objects

QUICK = Patience(pause=0.01, longest_pause=0.05)
MIB = 1 << 20
NOW = datetime.timedelta(0)


@pytest.fixture(params=["proxied", pytest.param("real_proxied", marks=pytest.mark.real)])
def through(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    """A fault proxy and the service behind it."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxy(through: tuple[Any, Any]) -> Any:
    return through[0]


@pytest.fixture
def objects(through: tuple[Any, Any], tmp_path: Path) -> S3Objects:
    return again(through[1], tmp_path / "cache")


def again(server: Any, cache: Path, patience: Patience = QUICK) -> S3Objects:
    return S3Objects(f"s3://{server.bucket}/store", cache, server.service, patience)


def a_blob(path: Path, size: int) -> tuple[str, Digest]:
    data = random.Random(size).randbytes(size)
    path.write_bytes(data)
    digest = Digest.of(data)
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}", digest


def ended(objects: S3Objects, older_than: datetime.timedelta = NOW) -> int:
    """How many unfinished uploads there were to end."""
    return transfer.abort_uploads(objects.bucket, objects.key(""), older_than)


def parts_sent(proxy: Any) -> list[int]:
    return [request.sent for request in proxy.requests if "partNumber=" in request.path]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_service_with_hiccups_is_asked_again(proxy: Any, objects: S3Objects, status: int) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        proxy.plan(method=method, status=status, times=2)
    objects.put("versions/a/1.json", b"document")
    assert objects.get("versions/a/1.json") == b"document"
    assert objects.exists("versions/a/1.json")
    objects.delete("versions/a/1.json")
    assert objects.get("versions/a/1.json") is None
    assert sum(request.status == status for request in proxy.requests) == 8


def test_a_service_that_stays_broken_is_given_up(proxy: Any, objects: S3Objects) -> None:
    proxy.plan(status=503, code="SlowDown", times=1000)
    with pytest.raises(DeliveryError, match="SlowDown"):
        objects.get("ledger/head.json")
    assert len(proxy.requests) == QUICK.attempts


def test_a_service_that_hangs_is_given_up(proxy: Any, through: tuple[Any, Any], tmp_path: Path) -> None:
    hasty = again(through[1], tmp_path / "c", Patience(attempts=2, pause=0.01, read=0.2))
    proxy.plan(delay=3600.0, times=1000)
    with pytest.raises(DeliveryError, match="did not answer in time") as caught:
        hasty.get("ledger/head.json")
    assert "endpoint" in caught.value.remedy
    end = time.monotonic() + 60
    while len(proxy.requests) < 2:  # what was given up by then may not have been read yet
        assert time.monotonic() < end
        time.sleep(0.01)
    assert len(proxy.requests) == 2


def test_a_slow_answer_is_waited_for(proxy: Any, objects: S3Objects) -> None:
    objects.put("a", b"x" * 300_000)
    proxy.plan(method="GET", rate=400_000)
    assert objects.get("a") == b"x" * 300_000


@pytest.mark.parametrize("fault", [{"lose": True}, {"cut": 5}, {"corrupt": 3}])
def test_a_damaged_document_is_read_again(proxy: Any, objects: S3Objects, fault: dict[str, Any]) -> None:
    objects.put("ledger/x.json", b'{"serial": 7}')
    planned = proxy.plan(method="GET", **fault)
    assert objects.get("ledger/x.json") == b'{"serial": 7}'
    assert planned.hits == 1


def test_a_document_that_stays_wrong_is_refused(proxy: Any, objects: S3Objects) -> None:
    objects.put("ledger/x.json", b'{"serial": 7}')
    proxy.plan(method="GET", corrupt=3, times=1000)
    with pytest.raises(IntegrityError, match="other bytes"):
        objects.get("ledger/x.json")


def test_who_created_knows_it_though_the_answer_was_lost(proxy: Any, objects: S3Objects) -> None:
    assert objects.create("ledger/0.json", b"0")
    lost = proxy.plan(method="PUT", path="ledger/1.json", lose=True, times=2)
    assert objects.create("ledger/1.json", b"the same")
    assert lost.hits == 2
    proxy.plan(method="PUT", path="ledger/1.json", status=500)
    assert not objects.create("ledger/1.json", b"the same")


def conditions(objects: S3Objects) -> Conditions:
    """Conditional writes beside the store's objects, as a destination makes them."""
    return Conditions(objects.bucket, objects.key(".probe/pointer"), objects.address)


def test_a_pointer_is_replaced_only_by_who_read_the_last_one(proxy: Any, objects: S3Objects) -> None:
    objects.put("current.json", b"one")
    found = objects.bucket.head(objects.key("current.json"))
    assert found is not None
    lost = proxy.plan(method="PUT", path="current.json", lose=True)
    replace = conditions(objects).replace
    assert replace(objects.key("current.json"), b"two", found.etag)
    assert lost.hits == 1
    assert replace(objects.key("current.json"), b"three", found.etag) is None
    assert replace(objects.key("absent.json"), b"three", found.etag) is None
    assert objects.get("current.json") == b"two"
    assert objects.get("absent.json") is None


def test_conditional_writes_are_probed_once(proxy: Any, objects: S3Objects) -> None:
    for serial in range(4):
        assert objects.create(f"ledger/{serial}.json", b"x")
    assert sum("/.probe/" in request.path for request in proxy.requests) == 2


def test_an_interrupted_upload_sends_only_the_rest(
    proxy: Any, through: tuple[Any, Any], objects: S3Objects, tmp_path: Path
) -> None:
    key, digest = a_blob(tmp_path / "model", 60 * MIB)
    proxy.plan(method="PUT", path=r"partNumber=[67]\b", status=403, code="AccessDenied", times=1000)
    with pytest.raises(DeliveryError, match=r"can't be used"):
        objects.put_file(key, tmp_path / "model", digest)
    assert not objects.exists(key)
    arrived = {
        request.path for request in proxy.requests if request.status == 200 and "partNumber=" in request.path
    }
    assert arrived
    proxy.forget()
    other = again(through[1], tmp_path / "other")
    other.put_file(key, tmp_path / "model", digest)
    assert len(parts_sent(proxy)) == 8 - len(arrived)
    local = other.local(key)
    assert local is not None
    assert local.read_bytes() == (tmp_path / "model").read_bytes()
    assert ended(other) == 0
    proxy.forget()
    other.put_file(key, tmp_path / "model", digest)
    assert [request.method for request in proxy.requests] == ["HEAD"]


def test_parts_of_another_content_are_sent_again(
    proxy: Any, through: tuple[Any, Any], objects: S3Objects, tmp_path: Path
) -> None:
    _, digest = a_blob(tmp_path / "old", 30 * MIB)
    proxy.plan(method="PUT", path=r"partNumber=4\b", status=403, times=1000)
    with pytest.raises(DeliveryError):
        objects.put_file("assets/labels", tmp_path / "old", digest)
    proxy.forget()
    _, fresh = a_blob(tmp_path / "new", 31 * MIB)
    objects.put_file("assets/labels", tmp_path / "new", fresh)
    head = objects.bucket.head(objects.key("assets/labels"))
    assert head is not None
    assert (head.digest, head.size) == (fresh, 31 * MIB)
    local = again(through[1], tmp_path / "other").local("assets/labels")
    assert local is not None
    assert local.read_bytes() == (tmp_path / "new").read_bytes()


def test_a_file_that_changes_under_way_leaves_no_upload(objects: S3Objects, tmp_path: Path) -> None:
    key, _ = a_blob(tmp_path / "model", 20 * MIB)
    with pytest.raises(IntegrityError, match="changed while"):
        objects.put_file(key, tmp_path / "model", Digest.of(b"other"))
    assert ended(objects) == 0


@pytest.mark.parametrize("operation", [r"POST .*uploadId", r"POST .*uploads", r"PUT .*partNumber=2"])
@pytest.mark.parametrize("fault", [{"lose": True}, {"status": 500}, {"delay": 1.5}])
def test_an_upload_survives_each_hiccup(
    proxy: Any, through: tuple[Any, Any], tmp_path: Path, operation: str, fault: dict[str, Any]
) -> None:
    patient = Patience(attempts=20, pause=0.01, longest_pause=0.05, read=1.0) if "delay" in fault else QUICK
    objects = again(through[1], tmp_path / "cache", patient)
    key, digest = a_blob(tmp_path / "model", 20 * MIB)
    method, path = operation.split()
    planned = proxy.plan(method=method, path=path, **fault)
    objects.put_file(key, tmp_path / "model", digest)
    assert planned.hits == 1
    head = objects.bucket.head(objects.key(key))
    assert head is not None
    assert (head.digest, head.size) == (digest, 20 * MIB)


@pytest.mark.real
def test_uploads_left_behind_are_cleaned_by_age(real_proxied: tuple[Any, Any], tmp_path: Path) -> None:
    proxy, server = real_proxied
    objects = again(server, tmp_path / "cache")
    key, digest = a_blob(tmp_path / "model", 20 * MIB)
    proxy.plan(method="PUT", path="partNumber=", status=403, times=1000)
    with pytest.raises(DeliveryError):
        objects.put_file(key, tmp_path / "model", digest)
    assert ended(objects, datetime.timedelta(days=7)) == 0
    assert ended(objects) == 1
    assert ended(objects) == 0


def test_two_who_upload_one_file_do_not_harm_each_other(
    through: tuple[Any, Any], objects: S3Objects, tmp_path: Path
) -> None:
    key, digest = a_blob(tmp_path / "model", 40 * MIB)
    stores = [again(through[1], tmp_path / f"cache{number}") for number in range(3)]
    failures = []

    def put(store: S3Objects) -> None:
        try:
            store.put_file(key, tmp_path / "model", digest)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    local = objects.local(key)
    assert local is not None
    assert Digest.of(local.read_bytes()) == digest


def test_a_cut_download_goes_on_where_it_ended(
    proxy: Any, through: tuple[Any, Any], objects: S3Objects, tmp_path: Path
) -> None:
    key, digest = a_blob(tmp_path / "model", 40 * MIB)
    objects.put_file(key, tmp_path / "model", digest)
    proxy.plan(method="GET", range=f"bytes={3 * transfer.PART}-", cut=1000, times=1000)
    with pytest.raises(DeliveryError, match="did not answer in time"):
        objects.local(key)
    (part,) = (tmp_path / "cache").rglob("*.part")
    kept = part.stat().st_size
    assert kept == 3 * transfer.PART
    proxy.forget()
    local = objects.local(key)
    assert local is not None
    assert Digest.of(local.read_bytes()) == digest
    assert sum(request.received for request in proxy.requests) == 40 * MIB - kept
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [local]


@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_wrong_bytes_are_never_kept(proxy: Any, objects: S3Objects, tmp_path: Path, size: int) -> None:
    key, digest = a_blob(tmp_path / "model", size)
    objects.put_file(key, tmp_path / "model", digest)
    proxy.plan(method="GET", corrupt=500, times=1000)
    with pytest.raises(IntegrityError, match="other bytes"):
        objects.local(key)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    proxy.forget()
    proxy.plan(method="GET", corrupt=500)
    local = objects.local(key)
    assert local is not None
    assert Digest.of(local.read_bytes()) == digest


def test_a_half_that_was_damaged_on_this_disk_is_fetched_again(objects: S3Objects, tmp_path: Path) -> None:
    key, digest = a_blob(tmp_path / "model", 20 * MIB)
    objects.put_file(key, tmp_path / "model", digest)
    part = tmp_path / "cache" / "sha256" / digest.hex[:2] / f"{digest.hex}.part"
    part.parent.mkdir(parents=True)
    for damaged in (b"garbage", b"garbage" * 4 * MIB):
        part.write_bytes(damaged)
        local = objects.local(key)
        assert local is not None
        assert Digest.of(local.read_bytes()) == digest
        local.unlink()


def test_of_several_who_need_a_file_one_fetches(
    proxy: Any, through: tuple[Any, Any], objects: S3Objects, tmp_path: Path
) -> None:
    key, digest = a_blob(tmp_path / "model", 40 * MIB)
    objects.put_file(key, tmp_path / "model", digest)
    proxy.forget()
    found: list[Path | None] = []
    stores = [again(through[1], tmp_path / "shared-cache") for _ in range(4)]
    threads = [threading.Thread(target=lambda s=store: found.append(s.local(key))) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0] is not None
    assert Digest.of(found[0].read_bytes()) == digest
    assert sum(request.received for request in proxy.requests) == 40 * MIB


def test_a_copy_within_the_service_sends_nothing(proxy: Any, objects: S3Objects, tmp_path: Path) -> None:
    key, digest = a_blob(tmp_path / "model", 20 * MIB)
    objects.put_file(key, tmp_path / "model", digest)
    bucket = objects.bucket
    head = bucket.head(objects.key(key))
    assert head is not None
    proxy.forget()
    headers = {"ContentType": "application/wasm", "ContentEncoding": "br", "CacheControl": "max-age=60"}
    transfer.copy(bucket, "elsewhere/model.wasm", (bucket.name, objects.key(key)), head, headers)
    assert sum(request.sent + request.received for request in proxy.requests) < 2000
    copied = bucket.head("elsewhere/model.wasm")
    assert copied is not None
    assert (copied.digest, copied.size, copied.headers) == (digest, 20 * MIB, headers)


def test_a_service_that_ignores_conditions_is_refused(proxied: tuple[Any, Any], tmp_path: Path) -> None:
    proxy, server = proxied  # moto only: a real server's signature covers the header that is taken away
    objects = again(server, tmp_path / "cache")
    proxy.plan(method="PUT", strip="If-None-Match", times=1000)
    with pytest.raises(DeliveryError, match="ignores If-None-Match") as caught:
        objects.create("ledger/prod/server/1.json", b"x")
    assert "folder" in caught.value.remedy
    assert objects.get("ledger/prod/server/1.json") is None
    proxy.forget()
    proxy.plan(method="PUT", strip="If-Match", times=1000)
    objects.put("current.json", b"one")
    with pytest.raises(DeliveryError, match="ignores If-Match"):
        conditions(objects).replace(objects.key("current.json"), b"two", '"x"')
    assert objects.get("current.json") == b"one"


@pytest.mark.real
@pytest.mark.parametrize("checksums", [None, True])
@pytest.mark.parametrize("size", [1000, 20 * MIB])
def test_bytes_that_change_on_the_way_in_are_sent_again(
    real_proxied: tuple[Any, Any], tmp_path: Path, size: int, checksums: bool | None
) -> None:
    proxy, server = real_proxied  # a real server checks what arrives, moto does not
    service = Service(endpoint=server.endpoint, checksums=checksums)
    objects = S3Objects(f"s3://{server.bucket}/store", tmp_path / "cache", service, QUICK)
    key, digest = a_blob(tmp_path / "model", size)
    spoilt = proxy.plan(method="PUT", spoil=500, times=2)
    objects.put_file(key, tmp_path / "model", digest)
    assert spoilt.hits == 2
    local = objects.local(key)
    assert local is not None
    assert Digest.of(local.read_bytes()) == digest
    proxy.plan(method="PUT", spoil=5, times=1000)
    with pytest.raises(DeliveryError, match="alters the bytes"):
        objects.create("ledger/prod/one/1.json", b"document")
    with pytest.raises(DeliveryError, match="alters the bytes"):
        objects.put("versions/a/1.json", b"document")
    assert objects.get("versions/a/1.json") is None


UPLOAD = """
import sys
from pathlib import Path
from shipway.registry.nouns import Digest
from shipway.registry.s3.bucket import Service
from shipway.registry.store.s3 import S3Objects
address, endpoint, key, path = sys.argv[1:]
objects = S3Objects(address, Path(path).parent / "cache", Service(endpoint=endpoint))
objects.put_file(key, Path(path), Digest(key.rpartition("/")[2]))
"""


@pytest.mark.real
def test_a_killed_upload_goes_on(real_proxied: tuple[Any, Any], tmp_path: Path) -> None:
    proxy, server = real_proxied
    objects = again(server, tmp_path / "cache")
    key, digest = a_blob(tmp_path / "model", 160 * MIB)
    proxy.plan(method="PUT", path=r"partNumber=1\d\b", delay=3600.0, times=1000)  # it never comes to the end
    command = [sys.executable, "-c", UPLOAD, objects.address, server.endpoint, key, str(tmp_path / "model")]
    with subprocess.Popen(command) as process:
        while len([r for r in proxy.requests if "partNumber=" in r.path and r.status == 200]) < 5:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not objects.exists(key)
    proxy.forget()
    objects.put_file(key, tmp_path / "model", digest)
    assert 0 < len(parts_sent(proxy)) <= 15
    local = objects.local(key)
    assert local is not None
    assert Digest.of(local.read_bytes()) == digest
