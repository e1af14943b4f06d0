"""``browser-wasm``'s files for hosts, held against what those publish. nginx itself: test_browser_page."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ParamValidationError
from botocore.validate import validate_parameters

ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


@pytest.fixture(scope="module")
def hosting(make_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hosting")
    make_in(root / "made", name="A.b_c").export("browser-wasm", root / "out")
    return root / "out" / "hosting"


def test_cloudfront_would_take_the_policy(hosting: Path) -> None:
    """AWS' own description of the request, as its SDK carries it."""
    operation = botocore.session.get_session().get_service_model("cloudfront").operation_model
    shape = operation("CreateResponseHeadersPolicy").input_shape
    policy = json.loads((hosting / "cloudfront.json").read_text())
    validate_parameters({"ResponseHeadersPolicyConfig": policy}, shape)
    headers = policy["CustomHeadersConfig"]
    assert headers["Quantity"] == len(headers["Items"])
    sent = {item["Header"]: item["Value"] for item in headers["Items"]}
    assert ISOLATED.items() <= sent.items()
    assert policy["CorsConfig"]["AccessControlAllowOrigins"] == {"Quantity": 1, "Items": ["*"]}
    headers["Items"][0]["Overrides"] = headers["Items"][0].pop("Override")
    with pytest.raises(ParamValidationError, match="Overrides"):
        validate_parameters({"ResponseHeadersPolicyConfig": policy}, shape)


def test_s3_would_take_the_rules_for_other_origins(hosting: Path) -> None:
    shape = (
        botocore.session.get_session().get_service_model("s3").operation_model("PutBucketCors").input_shape
    )
    rules = json.loads((hosting / "s3-cors.json").read_text())
    validate_parameters({"Bucket": "b", "CORSConfiguration": rules}, shape)
    (rule,) = rules["CORSRules"]
    assert (rule["AllowedOrigins"], rule["AllowedMethods"]) == (["*"], ["GET", "HEAD"])


def test_without_copies_nothing_leads_to_them(tiny: Any) -> None:
    """CloudFront's function can't look whether there is one."""
    paths = {file.path for file in tiny.build("browser-wasm", brotli=False).files}
    assert "hosting/cloudfront.json" in paths
    assert "hosting/cloudfront-function.js" not in paths
    assert not any(path.endswith(".br") for path in paths)


@pytest.mark.parametrize(
    ("uri", "accepted", "served"),
    [
        ("/releases/r-1/ort/x.wasm", "gzip, deflate, br", "/releases/r-1/ort/x.wasm.br"),
        ("/web/releases/r-1/ort/x.js", "br", "/web/releases/r-1/ort/x.js.br"),
        ("/releases/r-1/ort/x.wasm", "gzip", "/releases/r-1/ort/x.wasm"),
        ("/releases/r-1/ort/x.wasm", "brute", "/releases/r-1/ort/x.wasm"),
        ("/releases/r-1/ort/x.wasm", None, "/releases/r-1/ort/x.wasm"),
        ("/releases/r-1/model.onnx", "br", "/releases/r-1/model.onnx"),
        ("/current.json", "br", "/current.json"),
    ],
)
def test_cloudfronts_function_hands_out_the_copies_to_those_that_take_them(
    hosting: Path, uri: str, accepted: str | None, served: str
) -> None:
    """With the event that CloudFront documents for a viewer's request, and nothing but the language."""
    headers = {} if accepted is None else {"accept-encoding": {"value": accepted}}
    event = {
        "version": "1.0",
        "request": {"method": "GET", "uri": uri, "querystring": {}, "headers": headers},
    }
    program = """
const [file, event] = process.argv.slice(1);
const scene = require("vm").createContext(Object.create(null));
require("vm").runInContext(require("fs").readFileSync(file, "utf8"), scene);
console.log(JSON.stringify(scene.handler(JSON.parse(event))));
"""
    argv = ["node", "-e", program, hosting / "cloudfront-function.js", json.dumps(event)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == {**event["request"], "uri": served}  # type: ignore[dict-item]


def netlify(headers: Path) -> dict[str, dict[str, str]]:
    """What Netlify's own parser (tools/install-netlify-parser.sh) reads: headers by path."""
    cache = Path(os.environ.get("SHIPWAY_CACHE") or Path.home() / ".cache" / "shipway") / "netlify"
    program = """
import { parseAllHeaders } from "@netlify/headers-parser";
const told = await parseAllHeaders({ headersFiles: [process.argv[1]], minimal: true });
console.log(JSON.stringify({ ...told, errors: told.errors.map(String) }));
"""
    argv = ["node", "--input-type=module", "-e", program, headers]
    done = subprocess.run(argv, cwd=cache, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert told["errors"] == []
    return {rule["for"]: rule["values"] for rule in told["headers"]}


@pytest.mark.real
def test_netlify_reads_its_file(hosting: Path, tmp_path: Path) -> None:
    found = netlify(hosting / "_headers")
    assert set(found) == {"/*", "/releases/*", "/current.json"}
    assert ISOLATED.items() <= found["/*"].items()
    assert found["/releases/*"] == {"Cache-Control": "public, max-age=31536000, immutable"}
    assert found["/current.json"] == {"Cache-Control": "no-store"}
    opened = tmp_path / "_headers"
    opened.write_text((hosting / "_headers").read_text().replace("#  Access", "  Access"))
    assert netlify(opened)["/*"] == {**found["/*"], "Access-Control-Allow-Origin": "*"}
