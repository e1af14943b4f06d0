"""Hosts in a file of their own: which hosts they are, how they are reached, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.registry.config.load import load_text
from shipway.registry.config.project import Project
from shipway.registry.config.schema import schema
from shipway.registry.errors import ConfigError
from shipway.targets.deliveries.fleet import Fleet

TEXT = """
project: demo
targets:
  jetson: {{kind: jetson-ort, jetpack: "6.1"}}
environments:
  prod:
    jetson:
      to: ssh://deploy@{{host}}:22/opt/acme
      hosts: {hosts}
"""

HOSTS = """
hosts:
  line-1: {address: 10.0.4.1, port: 2222, user: root}
  line-2:
  line-3: {port: 23}
  spare: {address: "2001:db8::7"}
groups:
  line-a: [line-2, line-1]
  line-b: [line-1, line-3]
  nobody: []
"""


def project(root: Path, hosts: str, inventory: str = HOSTS) -> Project:
    (root / "hosts.yaml").write_text(inventory)
    return load_text(TEXT.format(hosts=hosts), root)


def hosts_of(found: Project) -> list[str]:
    return found.config.environments["prod"].targets["jetson"].hosts


def addresses(found: Project) -> dict[str, str]:
    fleet = found.delivery("prod", "jetson")
    assert isinstance(fleet, Fleet)
    return {name: host.address for name, host in fleet.hosts.items()}


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        ("{file: hosts.yaml, groups: [line-a]}", ["line-2", "line-1"]),
        ("{file: hosts.yaml, groups: [line-a, line-b]}", ["line-2", "line-1", "line-3"]),
        ("{file: hosts.yaml, groups: [line-b, line-a]}", ["line-1", "line-3", "line-2"]),
        ("{file: ./hosts.yaml}", ["line-1", "line-2", "line-3", "spare"]),
        ("[line-9, line-8]", ["line-9", "line-8"]),
    ],
)
def test_which_hosts_and_in_which_order(tmp_path: Path, hosts: str, names: list[str]) -> None:
    assert hosts_of(project(tmp_path, hosts)) == names


def test_a_host_is_reached_as_the_file_says(tmp_path: Path) -> None:
    assert addresses(project(tmp_path, "{file: hosts.yaml}")) == {
        "line-1": "ssh://root@10.0.4.1:2222/opt/acme",
        "line-2": "ssh://deploy@line-2:22/opt/acme",
        "line-3": "ssh://deploy@line-3:23/opt/acme",
        "spare": "ssh://deploy@[2001:db8::7]:22/opt/acme",
    }


def test_groups_alone_are_enough(tmp_path: Path) -> None:
    found = project(tmp_path, "{file: hosts.yaml}", "groups: {b: [x, y], a: [y, z]}\n")
    assert list(addresses(found)) == ["x", "y", "z"]


def test_two_hundred_hosts(tmp_path: Path) -> None:
    lines = [
        "hosts:",
        *(f"  box-{n}: {{address: 10.0.{n // 250}.{n % 250}, port: 2222}}" for n in range(200)),
    ]
    found = project(tmp_path, "{file: hosts.yaml}", "\n".join(lines))
    assert len(addresses(found)) == 200


WRONG = {
    "no such file": (
        "{file: none.yaml}",
        HOSTS,
        ["jetson.hosts.file: none.yaml can't be read: No such file"],
    ),
    "no file named": (
        "{groups: [a]}",
        HOSTS,
        ["deploy.yaml:9: environments.prod.jetson.hosts.file: is missing"],
    ),
    "unknown key": (
        "{file: hosts.yaml, group: [a]}",
        HOSTS,
        ["hosts.group: unknown key; did you mean 'groups'?"],
    ),
    "no such group": (
        "{file: hosts.yaml, groups: [line-a, lineb]}",
        HOSTS,
        [
            "deploy.yaml:9: environments.prod.jetson.hosts.groups[1]: no group 'lineb' in hosts.yaml; "
            "did you mean 'line-b'?"
        ],
    ),
    "nobody": ("{file: hosts.yaml, groups: [nobody]}", HOSTS, ["hosts: hosts.yaml names no host"]),
    "empty file": ("{file: hosts.yaml}", "", ["hosts.yaml: the file is empty"]),
    "a list": ("{file: hosts.yaml}", "- a\n", ["hosts.yaml:1: must be a mapping with 'hosts' or 'groups'"]),
    "not yaml": ("{file: hosts.yaml}", "hosts: [\n", ["hosts.yaml:2: not YAML"]),
    "twice": (
        "{file: hosts.yaml}",
        "hosts:\n  a:\n  a:\n",
        ["hosts.yaml:3: hosts.a: stands here twice (first in line 2)"],
    ),
    "a misspelt host": (
        "{file: hosts.yaml}",
        "hosts:\n  line-1:\ngroups:\n  a:\n    - line-1\n    - lin-1\n",
        ["hosts.yaml:6: groups.a[1]: no host 'lin-1' under 'hosts'; did you mean 'line-1'?"],
    ),
    "an option that is none": (
        "{file: hosts.yaml}",
        "hosts:\n  a: {adress: x}\n",
        ["hosts.yaml:2: hosts.a.adress: unknown key; did you mean 'address'?"],
    ),
    "a port that is none": (
        "{file: hosts.yaml}",
        "hosts:\n  a: {port: 70000}\n",
        ["hosts.yaml:2: hosts.a.port: input should be less than or equal to 65535"],
    ),
    "a name that is none": (
        "{file: hosts.yaml}",
        "groups:\n  a: ['x;y']\n",
        ["must be the name or the address"],
    ),
    "several": (
        "{file: hosts.yaml, groups: [a]}",
        "hosts: {a: {port: x}, b: {use: y}}\n",
        ["hosts.a.port: must be a whole number", "hosts.b.use: unknown key; did you mean 'user'?"],
    ),
    "no list and no file": ("line-1", HOSTS, ["hosts: must be a list, not 'line-1'"]),
}


@pytest.mark.parametrize(("hosts", "inventory", "messages"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_line(
    tmp_path: Path, hosts: str, inventory: str, messages: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        project(tmp_path, hosts, inventory)
    for message in messages:
        assert message in str(caught.value)
    assert len((caught.value.why or caught.value.what).splitlines()) == len(messages)


def test_the_schema_has_both_forms() -> None:
    document = schema()
    hosts = document["$defs"]["PlacementConfig"]["properties"]["hosts"]
    listed, named = hosts["anyOf"]
    assert listed == {"type": "array", "items": {"type": "string"}}
    assert named == {"$ref": "#/$defs/InventoryConfig"}
    assert set(document["$defs"]["InventoryConfig"]["properties"]) == {"file", "groups"}
    assert document["$defs"]["InventoryConfig"]["required"] == ["file"]


def test_two_targets_may_not_share_a_host_s_folder(tmp_path: Path) -> None:
    text = """
project: demo
targets:
  one: {kind: jetson-ort, jetpack: "6.1"}
  two: {kind: jetson-ort, jetpack: "6.1"}
environments:
  prod:
    one: {to: 'ssh://{host}/opt/acme', hosts: {file: hosts.yaml, groups: [line-a]}}
    two: {to: 'ssh://{host}/opt/acme', hosts: {file: hosts.yaml, groups: [GROUP]}}
"""
    (tmp_path / "hosts.yaml").write_text("groups:\n  line-a: [a, b]\n  line-b: [c, b]\n  line-c: [c, d]\n")
    with pytest.raises(ConfigError) as caught:
        load_text(text.replace("GROUP", "line-b"), tmp_path)
    assert caught.value.what == (
        "deploy.yaml:9: environments.prod.two.to: is where prod.one goes already (ssh://b/opt/acme); "
        "give each a place of its own"
    )
    load_text(text.replace("GROUP", "line-c"), tmp_path)


@pytest.mark.parametrize(
    ("hosts", "told"),
    [
        ("a: {address: 10.0.0.7}\n  b: {address: 10.0.0.7}", "two of its hosts are one and the same"),
        ("a: {address: 10.0.0.7}\n  b: {address: 10.0.0.7, port: 2222}", ""),
        ("a: {user: 'x -oProxyCommand=y'}\n  b:", "hosts.yaml:2"),
    ],
)
def test_two_names_of_one_host_and_a_user_that_is_none(tmp_path: Path, hosts: str, told: str) -> None:
    (tmp_path / "hosts.yaml").write_text(f"hosts:\n  {hosts}\n")
    text = """
project: demo
targets:
  one: {kind: jetson-ort, jetpack: "6.1"}
environments:
  prod:
    one: {to: 'ssh://{host}/opt/acme', hosts: {file: hosts.yaml}}
"""
    if not told:
        load_text(text, tmp_path)
        return
    with pytest.raises(ConfigError) as caught:
        load_text(text, tmp_path)
    assert told in str(caught.value)


def test_the_schema_has_the_environment_s_own_keys() -> None:
    environment = schema()["$defs"]["EnvironmentConfig"]
    assert set(environment["properties"]) == {"after", "soak", "approve", "hooks"}
    assert environment["additionalProperties"] == {"$ref": "#/$defs/PlacementConfig"}
