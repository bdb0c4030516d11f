"""What the components of lakes (`delta`, `ducklake`, `iceberg`) do alike with the properties of catalogs and stores."""

from collections.abc import Mapping

from data_platform.components.spec import resolve_all
from data_platform.ingestion.lakes.options import register_secrets


def resolved(properties: Mapping[str, str], where: str) -> dict[str, str]:
    """The properties with the values of the environment, of which the secrets are known to the redaction from now on.
    Raises PlatformError, naming `where`, for a variable that is not set."""
    given = resolve_all(dict(properties), where)
    assert isinstance(given, dict)  # noqa: S101 - what it was before
    register_secrets(given)
    return given
