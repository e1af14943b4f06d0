"""What a person is told when S3 can't be used, races between processes, and what S3 costs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from shipway.registry.errors import ConfigError, DeliveryError
from shipway.registry.s3 import failures
from shipway.registry.s3.bucket import Patience, Service, parse_address
from shipway.registry.store.s3 import S3Objects

QUICK = Patience(attempts=2, pause=0.01, longest_pause=0.05)


def an_object_store(server: Any, tmp_path: Path, **service: Any) -> S3Objects:
    return S3Objects(
        f"s3://{server.bucket}", tmp_path / "cache", Service(endpoint=server.endpoint, **service), QUICK
    )


@pytest.fixture(params=["moto_s3", pytest.param("real_s3", marks=pytest.mark.real)])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_addresses() -> None:
    assert parse_address("s3://acme-models") == ("acme-models", "")
    assert parse_address("s3://acme-models/") == ("acme-models", "")
    assert parse_address("s3://acme.models/prod/server/") == ("acme.models", "prod/server")


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3:///x", "s3://Upper/x", "s3://ab", "s3://a..b/x", "s3://acme/../x", "s3://acme/a//b",
     "s3://acme/a\nb", "file://acme/x", "acme"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no place in an S3 service"):
        S3Objects(address, tmp_path)


def test_no_bucket(server: Any, tmp_path: Path) -> None:
    objects = S3Objects("s3://nobody-made-this", tmp_path, server.service, QUICK)
    for use in (lambda: objects.put("x", b""), lambda: objects.create("x", b""), lambda: objects.get("x")):
        with pytest.raises(DeliveryError, match="no such bucket") as caught:
            use()
        assert "Create the bucket" in caught.value.remedy
    assert not objects.exists("x")


def test_no_credentials(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(DeliveryError, match="credentials") as caught:
        an_object_store(server, tmp_path).get("x")
    assert "AWS_ACCESS_KEY_ID" in caught.value.remedy


def test_nobody_listens(tmp_path: Path) -> None:
    objects = S3Objects("s3://bucket", tmp_path, Service(endpoint="http://127.0.0.1:9"), QUICK)
    with pytest.raises(DeliveryError, match=r"127\.0\.0\.1:9") as caught:
        objects.get("x")
    assert "'endpoint' in deploy.yaml" in caught.value.remedy


def test_settings_that_lead_nowhere_are_the_configuration_s_fault(server: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-such-profile") as caught:
        an_object_store(server, tmp_path, profile="no-such-profile").get("x")
    assert "aws configure" in caught.value.remedy
    with pytest.raises(ConfigError, match="endpoint"):
        S3Objects("s3://bucket", tmp_path, Service(endpoint="localhost:9000"), QUICK).get("x")
    with pytest.raises(ConfigError, match="region"):
        an_object_store(server, tmp_path, region="no region").get("x")


def test_a_profile_gives_credentials(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from os import environ

    lines = ["[ci]", *(f"{name.lower()} = {environ[name]}" for name in sorted(environ) if "KEY" in name)]
    (tmp_path / "keys").write_text("\n".join(line for line in lines if line.startswith(("[", "aws_"))))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    objects = an_object_store(server, tmp_path, profile="ci")
    objects.put("x", b"by profile")
    assert objects.get("x") == b"by profile"


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "why"), [("AWS_ACCESS_KEY_ID", "access key"), ("AWS_SECRET_ACCESS_KEY", "secret key")]
)
def test_wrong_keys(
    real_s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.setenv(name, "not-that-one")
    with pytest.raises(DeliveryError, match=why) as caught:
        an_object_store(real_s3, tmp_path).put("x", b"")
    assert "profile" in caught.value.remedy


@pytest.mark.real
def test_anonymous_access_is_denied_and_says_so(real_s3: Any, tmp_path: Path) -> None:
    with pytest.raises(DeliveryError, match="denied") as caught:
        an_object_store(real_s3, tmp_path, anonymous=True).put("x", b"")
    assert "s3:PutObject" in caught.value.remedy


@pytest.mark.parametrize(
    ("status", "code", "why", "remedy"),
    [
        (403, "RequestTimeTooSkewed", "clock", "Set this machine's clock"),
        (403, "AccessDenied", "denied", "s3:ListBucket"),
        (400, "ExpiredToken", "expired", "Log in again"),
        (400, "AuthorizationHeaderMalformed", "another region", "'region' in deploy.yaml"),
        (301, "PermanentRedirect", "another region", "'region' in deploy.yaml"),
        (501, "NotImplemented", "does not offer", "conditional writes"),
        (405, "MethodNotAllowed", "as S3 does", "'endpoint'"),
        (403, "QuotaExceeded", "full", "Free space"),
        (507, "XMinioStorageFull", "full", "Free space"),
        (400, "EntityTooLarge", "size", "limit"),
        (418, "Teapot", "Teapot", "Run the command again"),
    ],
)
def test_each_refusal_says_what_to_do(
    proxied: tuple[Any, Any], tmp_path: Path, status: int, code: str, why: str, remedy: str
) -> None:
    proxy, server = proxied
    proxy.plan(method="PUT", status=status, code=code, times=10)
    with pytest.raises(DeliveryError) as caught:
        an_object_store(server, tmp_path).put("ledger/1.json", b"x")
    assert why in caught.value.why
    assert remedy in caught.value.remedy
    assert len([request for request in proxy.requests if request.method == "PUT"]) <= 2  # not tried again


def test_what_passes_and_what_lasts() -> None:
    class SSLError(Exception):
        pass

    class HTTPClientError(Exception):
        pass

    assert failures.passing(HTTPClientError())
    assert failures.passing(type("ReadTimeoutError", (HTTPClientError,), {})())
    assert not failures.passing(type("SSLError", (HTTPClientError,), {})())
    assert not failures.passing(ValueError())
    remedy = failures.explain(SSLError("self-signed"), "s3://b", "https://e", "get_object").remedy
    assert "certificate" in remedy


RACE = textwrap.dedent("""
    import sys
    from pathlib import Path
    from shipway.registry.s3.bucket import Service
    from shipway.registry.store.s3 import S3Objects
    address, endpoint, name, rounds = sys.argv[1:]
    objects = S3Objects(address, Path("unused"), Service(endpoint=endpoint))
    objects.exists("warm")
    print("ready", flush=True)
    for number in range(int(rounds)):
        sys.stdin.readline()
        print(int(objects.create(f"ledger/{number:08d}.json", name.encode())), flush=True)
""")


@pytest.mark.real
def test_of_eight_processes_one_creates(real_s3: Any, tmp_path: Path) -> None:
    rounds = 50
    objects = an_object_store(real_s3, tmp_path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, objects.address, real_s3.endpoint, f"process {number}", str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for number in range(8)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for number in range(rounds):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            won = [process.stdout.readline().strip() for process in processes if process.stdout]
            assert won.count("1") == 1
            assert won.count("0") == 7
            assert objects.get(f"ledger/{number:08d}.json") == f"process {won.index('1')}".encode()
    finally:
        for process in processes:
            process.communicate(timeout=300)
    assert [process.returncode for process in processes] == [0] * 8


def test_nothing_heavy_is_imported_before_the_first_request() -> None:
    script = """
        import sys
        from pathlib import Path
        from shipway.registry.store.s3 import S3Objects
        S3Objects("s3://bucket/prefix", Path("cache"))
        print({"boto3", "botocore", "urllib3", "http.client"} & set(sys.modules))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.real
def test_memory_does_not_grow_with_the_file(real_s3: Any, tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from shipway.registry import files
        from shipway.registry.s3.bucket import Service
        from shipway.registry.store.s3 import S3Objects
        path = Path(sys.argv[3])
        objects = S3Objects(sys.argv[1], path.parent / "cache", Service(endpoint=sys.argv[2]))
        objects.get("warm")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        digest = files.digest_of(path)
        objects.put_file("blobs/" + digest.hex, path, digest)
        assert files.digest_of(objects.local("blobs/" + digest.hex)) == digest
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """)
    source = tmp_path / "model"
    with source.open("wb") as stream:
        for number in range(400):
            stream.write(bytes([number % 251]) * (1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", script, f"s3://{real_s3.bucket}", real_s3.endpoint, str(source)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 140 * 1024  # KiB: nine parts of 8 MiB each way and what a transfer needs
