"""deploy.yaml: what is read, and every way in which it can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.registry.config.load import load, load_text
from shipway.registry.config.project import Project
from shipway.registry.errors import ConfigError, UsageError
from shipway.registry.nouns import Tolerance

HEAD = "project: acme\n"
WHOLE = """\
project: acme
targets:
  browser: {kind: browser-wasm, size_limit: 25MB}
  jetson: {kind: jetson-ort, jetpack: "6.1"}
environments:
  staging:
    browser: {to: ./deployed/staging}
  prod:
    after: staging
    browser: {to: s3://bucket/prefix}
    jetson: {to: "ssh://deploy@{host}/opt/acme", hosts: [a, b], waves: [1, 25%]}
"""


def project(text: str, root: Path = Path("/nowhere")) -> Project:
    return load_text(text, root)


def test_a_whole_file() -> None:
    found = project(WHOLE)
    config = found.config
    assert config.targets["browser"].kind == "browser-wasm"
    assert config.targets["browser"].options.model_dump()["size_limit"] == 25_000_000
    assert config.targets["browser"].precision == "fp32"
    assert config.environments["prod"].after == "staging"
    assert list(config.environments["prod"].targets) == ["browser", "jetson"]
    assert config.environments["prod"].targets["jetson"].waves == [1, "25%"]
    assert config.environments["staging"].targets["browser"].keep == 5


def test_defaults_keep_everything_below_the_files_folder() -> None:
    found = project(HEAD, Path("/srv/acme"))
    assert found.registry_uri == "sqlite:////srv/acme/.shipway/mlflow.db"
    assert found.artifacts == Path("/srv/acme/.shipway/artifacts")
    assert found.store.objects.address == "/srv/acme/.shipway/store"
    assert found.config.convert.opset == "auto"
    assert found.config.convert.allowed("fp32") == Tolerance(1e-5, 1e-5)
    assert found.templates is None


@pytest.mark.parametrize(
    ("registry", "uri"),
    [
        ("sqlite:////var/lib/mlflow.db", "sqlite:////var/lib/mlflow.db"),
        ("https://mlflow.acme.com", "https://mlflow.acme.com"),
        ("postgresql://u:p@db/mlflow", "postgresql://u:p@db/mlflow"),
        ("databricks", "databricks"),
        ("./mlruns", "/srv/mlruns"),
    ],
)
def test_a_registry_is_any_tracking_uri(registry: str, uri: str) -> None:
    assert project(f"{HEAD}registry: {registry}\n", Path("/srv")).registry_uri == uri


def test_a_model_overrides_what_it_names_and_nothing_else() -> None:
    text = f"{HEAD}convert: {{opset: 13, timeout_s: 9}}\nmodels: {{ocr: {{timeout_s: 30}}}}\n"
    config = project(text).config
    assert (config.conversion("ocr").opset, config.conversion("ocr").timeout_s) == (13, 30)
    assert config.conversion("other") == config.convert


# each: the text, and the lines that the error must hold, word for word
WRONG = {
    "empty": ("", ["deploy.yaml: the file is empty"]),
    "only comments": ("# nothing\n", ["deploy.yaml: the file is empty"]),
    "no mapping": ("- a\n- b\n", ["deploy.yaml:1: must be a mapping"]),
    "not yaml": (f"{HEAD}targets: [\n", ["deploy.yaml:3: not YAML: "]),
    "tab": (f"{HEAD}convert:\n\topset: auto\n", ["deploy.yaml:3: not YAML: "]),
    "no project": ("store: x\n", ["deploy.yaml:1: project: is missing"]),
    "number for text": (
        "project: 2024\n",
        ['deploy.yaml:1: project: must be text; write it in quotes: "2024"'],
    ),
    "nothing for text": ("project:\n", ["deploy.yaml:1: project: must be text, but nothing is there"]),
    "twice": (f"{HEAD}store: a\nstore: b\n", ["deploy.yaml:3: store: stands here twice (first in line 2)"]),
    "anchor": (
        f"{HEAD}store: &here x\nregistry: *here\n",
        ["deploy.yaml:3: registry: anchors and aliases are not supported; write it out"],
    ),
    "loop": (f"{HEAD}models: &m {{a: *m}}\n", ["models.a: anchors and aliases are not supported"]),
    "merge": (f"{HEAD}convert:\n  <<: {{opset: 3}}\n", ["deploy.yaml:3: convert: '<<' is not supported"]),
    "key no text": (f"{HEAD}models:\n  1: {{}}\n", ["deploy.yaml:3: models: the key 1 must be text"]),
    "unknown key": (
        f"{HEAD}registri: x\n",
        ["deploy.yaml:2: registri: unknown key; did you mean 'registry'?"],
    ),
    "unknown key, far": (
        f"{HEAD}zzz: x\n",
        ["deploy.yaml:2: zzz: unknown key; known: convert, environments"],
    ),
    "unknown in a list's item": (
        f"{HEAD}environments:\n  prod:\n    server: {{to: x, gate: {{chek: true}}}}\n",
        ["deploy.yaml:4: environments.prod.server.gate.chek: unknown key; did you mean 'check'?"],
    ),
    "unknown in a model": (
        f"{HEAD}models:\n  m:\n    opse: 3\n",
        ["deploy.yaml:4: models.m.opse: unknown key; did you mean 'opset'?"],
    ),
    "unknown kind option": (
        f"{HEAD}targets:\n  browser:\n    kind: browser-wasm\n    precison: int8\n",
        ["deploy.yaml:5: targets.browser.precison: unknown key; did you mean 'precision'?"],
    ),
    "wrong kind option": (
        f"{HEAD}targets:\n  b: {{kind: browser-wasm, size_limit: big}}\n",
        ["deploy.yaml:3: targets.b.size_limit: must be a size such as 20MB"],
    ),
    "unknown kind": (
        f"{HEAD}targets:\n  b: {{kind: brauser}}\n",
        ["deploy.yaml:3: targets.b.kind: There is no target kind 'brauser'."],
    ),
    "no kind": (
        f"{HEAD}targets:\n  b: {{precision: fp16}}\n",
        ["deploy.yaml:3: targets.b: must be a mapping with"],
    ),
    "targets no mapping": (
        f"{HEAD}targets: 3\n",
        ["deploy.yaml:2: targets: must be a mapping (key: value), not 3"],
    ),
    "convert a list": (f"{HEAD}convert: [1]\n", ["deploy.yaml:2: convert: must be a mapping (key: value)"]),
    "opset": (
        f"{HEAD}convert: {{opset: 99}}\n",
        ["convert.opset: must be 'auto' or an ONNX opset from 7 to 30"],
    ),
    "opset true": (f"{HEAD}convert: {{opset: true}}\n", ["convert.opset: must be 'auto' or"]),
    "half a tolerance": (
        f"{HEAD}convert: {{tolerance: {{atol: 1}}}}\n",
        ["convert.tolerance.rtol: is missing"],
    ),
    "infinite": (
        f"{HEAD}convert: {{timeout_s: .inf}}\n",
        ["convert.timeout_s: input should be a finite number"],
    ),
    "true for a number": (f"{HEAD}convert: {{timeout_s: true}}\n", ["convert.timeout_s: must be a number"]),
    "memory": (f"{HEAD}convert: {{memory: 3 bags}}\n", ["convert.memory: must be a size such as 20MB"]),
    "memory that holds no Python": (
        f"{HEAD}convert: {{memory: 50MB}}\n",
        ["convert.memory: must be 100MB at least"],
    ),
    "store on a host": (f"{HEAD}store: ssh://a/b\n", ["deploy.yaml:2: store: must be a folder or s3://"]),
    "endpoint of a folder": (
        f"{HEAD}store: {{to: x, region: y}}\n",
        ["endpoint, region and profile go with s3://"],
    ),
    "no environment body": (f"{HEAD}environments:\n  prod:\n", ["environments.prod: must be a mapping"]),
    "dangling target": (
        f"{HEAD}targets:\n  server: {{kind: jetson-ort}}\nenvironments:\n  prod:\n    servr: {{to: x}}\n",
        ["deploy.yaml:6: environments.prod.servr: no such target under 'targets'; did you mean 'server'?"],
    ),
    "dangling after": (
        f"{HEAD}environments:\n  staging: {{}}\n  prod: {{after: stagin}}\n",
        ["deploy.yaml:4: environments.prod.after: no environment 'stagin'; did you mean 'staging'?"],
    ),
    "after itself": (
        f"{HEAD}environments:\n  prod: {{after: prod}}\n",
        ["environments.prod.after: goes in a circle: prod after prod"],
    ),
    "after a list": (
        f"{HEAD}environments:\n  prod: {{after: [a]}}\n",
        ["environments.prod.after: must be text"],
    ),
    "target named after": (
        f"{HEAD}targets:\n  after: {{kind: x}}\n",
        ["targets.after: this word has a meaning"],
    ),
    "capitals": (f"{HEAD}environments:\n  Prod: {{}}\n", ["environments.Prod: a name is lower-case letters"]),
    "path as name": (
        f"{HEAD}environments:\n  ../x: {{}}\n",
        ["environments.../x: a name is lower-case letters"],
    ),
    "scheme": (f"{HEAD}store: ftp://a/b\n", ["store.to: must be a folder, s3://bucket/prefix or ssh://"]),
}


@pytest.mark.parametrize(("text", "lines"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_with_key_and_line(text: str, lines: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        project(text)
    said = f"{caught.value.what}\n{caught.value.why}"
    for line in lines:
        assert line in said
    assert caught.value.remedy


PLACED = """\
project: acme
targets:
  a: {kind: browser-wasm}
  b: {kind: browser-wasm}
  a-b: {kind: browser-wasm}
"""

WRONG_PLACES = {
    "hosts of a folder": (
        "  prod: {a: {to: x, hosts: [h]}}",
        "hosts: for ssh:// destinations only",
    ),
    "service of a folder": (
        "  prod: {a: {to: x, s3: {region: eu-central-1}}}",
        "s3: for s3:// destinations only",
    ),
    "no hosts": ('  prod: {a: {to: "ssh://u@{host}/x"}}', "'to' names {host}, so it needs hosts"),
    "hostile host": (
        "  prod: {a: {to: ssh://h/x, hosts: [-oProxyCommand=x]}}",
        "must be the name or the address",
    ),
    "wave of none": (
        "  prod: {a: {to: ssh://h/x, waves: [0%]}}",
        "waves[0]: must be a number of hosts (1) or",
    ),
    "empty": ("  prod: {a: {to: ''}}", "environments.prod.a.to: must be a folder"),
    "control character": ('  prod: {a: {to: "x\\ny"}}', "environments.prod.a.to: must be a folder"),
    "no bucket": ("  prod: {a: {to: 's3://'}}", "environments.prod.a.to: must be a folder"),
    "one folder for two": (
        "  prod: {a: {to: x/y}, b: {to: ./x/y/}}",
        "environments.prod.b.to: is where prod.a goes already",
    ),
    "one alias for two": ("  c-a: {b: {to: x}}\n  c: {a-b: {to: y}}", "has the same alias 'c-a-b' as c-a.b"),
    "keep none": ("  prod: {a: {to: x, keep: 0}}", "environments.prod.a.keep: input should be greater than"),
    "keep a word": (
        "  prod: {a: {to: x, keep: '3'}}",
        "environments.prod.a.keep: must be a whole number, not '3'",
    ),
    "url no url": ("  prod: {a: {to: x, gate: {url: infer:8000}}}", "gate.url: must be http://server:port"),
    "url of a password": ("  prod: {a: {to: x, gate: {url: http://me:pw@x}}}", "(without a password in it)"),
    "url of no port": ("  prod: {a: {to: x, gate: {url: http://x:99999}}}", "must be http://server:port"),
    "speed of no server": (
        "  prod: {a: {to: x, gate: {p95_ms: 40}}}",
        "about the server at 'url', and there is",
    ),
    "host in a url of a folder": (
        "  prod: {a: {to: x, gate: {url: 'http://{host}:1'}}}",
        "{host} in the gate's url is for ssh:// destinations only",
    ),
    "one url for all hosts": (
        "  prod: {a: {to: 'ssh://{host}/x', hosts: [h], gate: {url: http://x}}}",
        "the gate's url needs {host}",
    ),
    "command no list": ("  prod: {a: {to: x, gate: {command: ./t.sh}}}", "gate.command: must be a list"),
}


@pytest.mark.parametrize(("line", "message"), WRONG_PLACES.values(), ids=WRONG_PLACES)
def test_what_is_wrong_with_a_destination(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        project(f"{PLACED}environments:\n{line}\n")
    assert message in str(caught.value)


def test_all_errors_are_shown_in_the_order_of_the_file() -> None:
    text = "project: 1\nregistri: x\nconvert: {opset: 0}\ntargets:\n  b: {kind: browser-wasm, x: 1}\n"
    with pytest.raises(ConfigError) as caught:
        project(text)
    assert caught.value.what == "deploy.yaml has 4 errors."
    assert [line.split(": ")[0] for line in caught.value.why.splitlines()] == [
        f"deploy.yaml:{number}" for number in (1, 2, 3, 5)
    ]


def test_a_circle_of_environments_is_told_once() -> None:
    text = f"{HEAD}environments:\n  a: {{after: c}}\n  b: {{after: a}}\n  c: {{after: b}}\n"
    with pytest.raises(
        ConfigError, match=r"environments\.a\.after: goes in a circle: a after c after b after a"
    ):
        project(text)


def test_lazy_leaves_options_for_later_and_then_names_their_line() -> None:
    text = f"{HEAD}targets:\n  b:\n    kind: browser-wasm\n    precison: int8\n"
    found = load_text(text, Path("/nowhere"), lazy=True)
    with pytest.raises(ConfigError, match=r"deploy.yaml:5: targets.b.precison: unknown key"):
        _ = found.config.targets["b"].options


def test_a_file_that_is_not_there_is_answered_with_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        load(tmp_path / "deploy.yaml")
    assert "shipway init" in caught.value.remedy


@pytest.mark.parametrize("content", [b"project: \xff\xfe\n", b"\x00\x01\x02"])
def test_a_file_that_is_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"deploy\.yaml"):
        load(path)


def test_a_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "deploy.yaml"
    path.write_bytes(b"\xef\xbb\xbfproject: acme\n")
    assert load(path).config.project == "acme"


def test_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "deploy.yaml").write_text(f"{HEAD}store: ./s\ntemplates: ./t\n")
    found = load(tmp_path / "deploy.yaml")
    assert found.store.objects.address == str(tmp_path / "s")
    assert found.templates == tmp_path / "t"


def test_a_folder_of_templates_that_is_not_there(tmp_path: Path) -> None:
    text = "project: acme\ntemplates: ./my-tempates\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, tmp_path)
    assert "deploy.yaml:2: templates: there is no folder my-tempates" in str(caught.value)
    assert load_text(text, tmp_path, lazy=True).templates == tmp_path / "my-tempates"
    (tmp_path / "my-tempates").mkdir()
    assert load_text(text, tmp_path).templates == tmp_path / "my-tempates"


def test_a_bucket_as_destination_or_store() -> None:
    assert project(WHOLE).delivery("prod", "browser").address.startswith("s3://")
    found = project(f"{HEAD}store: {{to: s3://bucket/prefix, region: eu-central-1}}\n")
    assert found.store.objects.address == "s3://bucket/prefix"
    with pytest.raises(ConfigError, match=r"deploy.yaml:2: store: .* is no place in an S3 service"):
        _ = project(f"{HEAD}store: s3://Not_A_Bucket/x\n").store


def test_unknown_names_on_the_command_line_are_wrong_usage() -> None:
    found = project(WHOLE)
    with pytest.raises(UsageError, match="did you mean 'prod'"):
        found.placements("prd")
    with pytest.raises(UsageError, match="did you mean 'jetson'"):
        found.placements("prod", ["jetsn"])
    with pytest.raises(UsageError, match="did you mean 'browser'"):
        found.target("brouser")
    assert list(found.placements("prod", ["jetson"])) == ["jetson"]
    assert found.target("browser").kind == "browser-wasm"


def test_an_environment_without_targets_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="has no targets"):
        project(f"{HEAD}environments: {{prod: {{}}}}\n").placements("prod")
