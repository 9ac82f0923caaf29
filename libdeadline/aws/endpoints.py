"""Where a service is: the URL that somebody set, else the one that AWS gives it in a region.

Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints"; botocore's endpoint rule sets, compared
with them by a test.
"""

from __future__ import annotations

import os

from .. import statuses
from ..errors import Trouble

TYPE_CHECKING = False  # as in `libdeadline.command`
if TYPE_CHECKING:
    from .profiles import Profiles

# Service ids as environment variables and profiles spell them.
KEYS = {"logs": "cloudwatch_logs"}
# Suffixes of host names: of ordinary, and of dual-stack endpoints.
PARTITIONS = (
    ("cn-", "amazonaws.com.cn", "api.amazonwebservices.com.cn"),
    ("us-isob-", "sc2s.sgov.gov", "api.aws.scloud"),
    ("us-isof-", "csp.hci.ic.gov", "api.aws.hci.ic.gov"),
    ("us-iso-", "c2s.ic.gov", "api.aws.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk"),
    ("eusc-", "amazonaws.eu", "api.amazonwebservices.eu"),
    ("", "amazonaws.com", "api.aws"),
)
DUAL_STACK_S3 = "s3.dualstack"


def configured(service: str, profiles: Profiles, profile: str) -> str | None:
    """The endpoint URL that the environment or the profile sets for a service, or None."""
    if _flag("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls", profiles, profile):
        return None
    key = KEYS.get(service, service)
    return (
        os.environ.get(f"AWS_ENDPOINT_URL_{key.upper()}")
        or os.environ.get("AWS_ENDPOINT_URL")
        or profiles.endpoint(profile, key)
    )


def resolved(service: str, region: str, profiles: Profiles, profile: str) -> str:
    """The URL of a service in a region.

    Raises: Trouble (78) where the URL that somebody set is none.
    """
    url = configured(service, profiles, profile)
    if url:
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Trouble(
                f"the endpoint of '{service}' is set to '{url}', which is no http URL: correct it in the environment "
                "or in the AWS profile",
                statuses.CONFIGURATION,
            )
        return url.rstrip("/")
    if not all(part.isalnum() for part in region.split("-")) or not region:
        raise Trouble(f"'{region}' is no AWS region", statuses.CONFIGURATION)
    suffix, dual_suffix = next(suffixes for start, *suffixes in PARTITIONS if region.startswith(start))
    fips = _flag("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint", profiles, profile)
    dual = _flag("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint", profiles, profile)
    host = f"{service}-fips" if fips else service
    if service == "s3" and dual:
        return f"https://{host}.dualstack.{region}.{suffix}"
    if fips and region.startswith("us-gov-") and not dual and service in ("sts", "logs"):
        host = service  # there the ordinary endpoint is the FIPS one
    return f"https://{host}.{region}.{dual_suffix if dual else suffix}"


def injects_prefix(url: str, profiles: Profiles, profile: str) -> bool:
    """Whether a model's host prefix (management., scheduling.) goes before the host of `url`.

    An IP address or localhost can't take one.
    """
    if _flag("AWS_DISABLE_HOST_PREFIX_INJECTION", "disable_host_prefix_injection", profiles, profile):
        return False
    from urllib.parse import urlsplit

    host = urlsplit(url).hostname or ""
    return host != "localhost" and ":" not in host and not host.replace(".", "").isdigit()


def _flag(variable: str, key: str, profiles: Profiles, profile: str) -> bool:
    return (os.environ.get(variable) or profiles.value(profile, key) or "").lower() == "true"
