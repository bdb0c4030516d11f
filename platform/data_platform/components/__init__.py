"""The Dagster floor: YAML in, assets, checks and sensors out. What the assets do lies in the floors below.

A component is named in `defs.yaml` by its class here, such as `type: data_platform.components.SqlSource`.
"""

from data_platform.components.models import DbtModels
from data_platform.components.sources import FileSource, RestSource, SqlSource

__all__ = ["DbtModels", "FileSource", "RestSource", "SqlSource"]
