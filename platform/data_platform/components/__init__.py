"""The Dagster floor: YAML in, assets, checks and sensors out. What the assets do lies in the floors below.

A component is named in `defs.yaml` by its class here, such as `type: data_platform.components.SqlSource`. A kind of
source from another package extends `SourceComponent` and is registered by an entry point: see `components.source`.
"""

from data_platform.components.alerts import Alerts
from data_platform.components.file import FileSource
from data_platform.components.models import DbtModels
from data_platform.components.rest import RestSource
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.sql import SqlSource

__all__ = ["Alerts", "DbtModels", "FileSource", "RestSource", "SourceComponent", "SourceOptions", "SqlSource"]
