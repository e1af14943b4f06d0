"""What S3 services and botocore say when something fails: whether to try again, and what to tell a person.

Pure: errors are told apart by the names of their classes and by the services' codes, so that nothing heavy is
imported. Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shipway.registry.errors import ConfigError, DeliveryError, IntegrityError, ShipwayError

_PASSING_STATUS = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "BadDigest",  # what arrived is not what was sent, by x-amz-checksum-sha256
        "ConditionalRequestConflict",  # two conditional writes met: AWS asks to send again
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentChecksumMismatch",  # BadDigest in MinIO's words
        "XAmzContentSHA256Mismatch",  # the same, by the signed hash
    }
)
_PASSING_CLASSES = frozenset(
    {"ConnectionError", "HTTPClientError", "IncompleteReadError", "ResponseParserError", "TimeoutError"}
)
_LASTING_CLASSES = frozenset({"SSLError", "ProxyConnectionError"})  # though they are ConnectionErrors


class DamagedError(Exception):
    """Bytes arrived whole but are not what was stored. Fetching again often helps; if not, IntegrityError."""


def code(error: BaseException) -> str:
    """The service's word for the failure (``NoSuchKey``), or '' where the service said nothing."""
    answer: Mapping[str, Any] = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))


def status(error: BaseException) -> int:
    """The HTTP status of the answer, or 0 where there was none."""
    answer: Mapping[str, Any] = getattr(error, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _classes(error: BaseException) -> frozenset[str]:
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def passing(error: BaseException) -> bool:
    """Whether the same request may well succeed in a moment."""
    if isinstance(error, DamagedError):
        return True
    kinds = _classes(error)
    if kinds & _LASTING_CLASSES:
        return False
    if kinds & _PASSING_CLASSES:
        return True
    return status(error) in _PASSING_STATUS or code(error) in _PASSING_CODES


def missing(error: BaseException) -> bool:
    """Whether there is no such object. HEAD answers have no body, hence no better code than the status."""
    return code(error) in ("NoSuchKey", "404", "NotFound")


def precondition(error: BaseException) -> bool:
    """Whether a condition of ours (If-None-Match, If-Match) was the reason for refusing."""
    return code(error) == "PreconditionFailed" or status(error) == 412


def lost_upload(error: BaseException) -> bool:
    """Whether an upload in parts can't be finished as it is: it ended, or a part of it was replaced."""
    return code(error) in ("NoSuchUpload", "InvalidPart", "InvalidPartOrder", "EntityTooSmall")


_CREDENTIALS = frozenset(
    {
        "CredentialRetrievalError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "SSOError",
        "TokenRetrievalError",
    }
)
_CREDENTIALS_REMEDY = (
    "Give credentials the way AWS tools take them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a "
    "profile in ~/.aws/credentials named by 'profile' in deploy.yaml, or 'aws sso login'."
)

_CODES: dict[str, tuple[str, str]] = {
    "NoSuchBucket": (
        "There is no such bucket.",
        "Create the bucket, or correct its name, 'endpoint' or 'region' in deploy.yaml.",
    ),
    "InvalidAccessKeyId": ("The service does not know this access key.", _CREDENTIALS_REMEDY),
    "SignatureDoesNotMatch": (
        "The secret key does not fit the access key, or something between here and there alters requests.",
        _CREDENTIALS_REMEDY,
    ),
    "ExpiredToken": (
        "The credentials have expired.",
        "Log in again ('aws sso login'), or renew the session token.",
    ),
    "BadDigest": (
        "What arrives there is, again and again, not what was sent.",
        "Something between here and there alters the bytes: a proxy, a cable, memory. Try another way there.",
    ),
    "RequestTimeTooSkewed": (
        "This machine's clock and the service's are too far apart.",
        "Set this machine's clock (a time service keeps it right), then run the command again.",
    ),
    "NotImplemented": (
        "The service does not offer something that shipway needs.",
        "Use one that honours conditional writes (AWS S3, MinIO, versitygw do), or a folder.",
    ),
    "EntityTooLarge": (
        "The service takes no file of this size.",
        "Raise the service's limit, or ship a smaller model.",
    ),
    "MethodNotAllowed": (
        "That address does not answer as S3 does.",
        "Check 'endpoint' in deploy.yaml: it is the URL of the API, not of the web console.",
    ),
}
_CODES["InvalidBucketName"] = _CODES["NoSuchBucket"]
_CODES["XAmzContentChecksumMismatch"] = _CODES["XAmzContentSHA256Mismatch"] = _CODES["BadDigest"]
_CODES["TokenRefreshRequired"] = _CODES["ExpiredToken"]
_CODES["InvalidToken"] = _CODES["ExpiredToken"]
_CODES["XAdminUserNotFound"] = _CODES["InvalidAccessKeyId"]  # versitygw's word

_REGION = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
_DENIED = ("AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden")
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded")


def explain(error: BaseException, address: str, endpoint: str, doing: str) -> ShipwayError:
    """The error for a person. ``address``: s3://bucket; ``endpoint``: its URL; ``doing``: the operation."""
    if isinstance(error, DamagedError):
        return IntegrityError(
            f"{address} gives back other bytes than were stored.",
            why=str(error),
            remedy="Was it altered by hand? Delete that object, then register or promote again.",
        )
    kinds = _classes(error)
    if "ProfileNotFound" in kinds:
        return ConfigError(
            f"'profile' of {address} in deploy.yaml: {error}",
            remedy="Name a profile of ~/.aws/config, or add it there ('aws configure --profile NAME').",
        )
    if kinds & {"NoRegionError", "InvalidRegionError"}:
        return ConfigError(
            f"'region' of {address} in deploy.yaml: {error}",
            remedy="Set it to the bucket's region, such as eu-central-1.",
        )
    why, remedy = _cause(error, endpoint, doing)
    return DeliveryError(f"{address} can't be used.", why=why, remedy=remedy)


def _cause(error: BaseException, endpoint: str, doing: str) -> tuple[str, str]:
    """Why a service can't be used, and the remedy."""
    kinds, said = _classes(error), code(error)
    if kinds & _CREDENTIALS:
        return str(error), _CREDENTIALS_REMEDY
    if said in _CODES:
        why, remedy = _CODES[said]
        return f"{why} ({doing}: {said} from {endpoint}{_skew(error)})", remedy
    if said in _REGION or status(error) == 301:
        return (
            f"The bucket is in another region than asked for ({doing}: {said} from {endpoint}).",
            "Set 'region' in deploy.yaml to the bucket's.",
        )
    if said in _FULL or status(error) == 507:
        return (
            f"It is full ({said or status(error)}).",
            "Free space there or raise its quota, then run the command again.",
        )
    if said in _DENIED or status(error) in (401, 403):
        return (
            f"Access is denied ({doing} at {endpoint}).",
            "Let these credentials read, write, delete and list (s3:GetObject, s3:PutObject, "
            "s3:DeleteObject, s3:ListBucket; without the last, a missing object looks like a forbidden one).",
        )
    if passing(error) and not said:
        return (
            f"{endpoint} did not answer in time ({doing}): {error}",
            "Is the service up, is 'endpoint' in deploy.yaml right, is a firewall or proxy between?",
        )
    if "SSLError" in kinds:
        return (
            str(error),
            "Trust the service's certificate (AWS_CA_BUNDLE names a file), or correct 'endpoint'.",
        )
    return (
        f"{doing} at {endpoint}: {said or type(error).__name__}: {error}",
        "Run the command again; if it fails the same way, ask who runs that service.",
    )


def _skew(error: BaseException) -> str:
    if code(error) != "RequestTimeTooSkewed":
        return ""
    answer: Mapping[str, Any] = getattr(error, "response", {})
    there = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return f", where it is {there}" if there else ""
