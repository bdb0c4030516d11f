"""The Dagster floor: YAML in, assets, checks and sensors out. What the assets do lies in the floors below.

A component is named in `defs.yaml` by its class here, such as `type: data_platform.components.SqlSource`. A kind of
source from another package extends `SourceComponent` and is registered by an entry point: see `components.source`.
What is named here is what platforms and other packages may rely on: `platform_definitions` for a platform's
`definitions.py`, the components, and what a kind of source of one's own is made of.
"""

from data_platform.components.alerts import Alerts
from data_platform.components.dashboards import Dashboards
from data_platform.components.dataset import Dataset
from data_platform.components.debezium import DebeziumSource
from data_platform.components.delta import DeltaSource
from data_platform.components.dlt import DltSource
from data_platform.components.ducklake import DuckLakeSource
from data_platform.components.export import Export
from data_platform.components.external import ExternalJob
from data_platform.components.file import FileSource
from data_platform.components.hbase import HbaseSource
from data_platform.components.iceberg import IcebergSource
from data_platform.components.kafka import KafkaSource
from data_platform.components.models import DbtModels
from data_platform.components.mongodb import MongodbSource
from data_platform.components.platform import platform_definitions
from data_platform.components.rest import RestSource
from data_platform.components.scores import Scores
from data_platform.components.singer import SingerSource
from data_platform.components.source import SourceComponent, SourceOptions
from data_platform.components.sql import SqlSource
from data_platform.components.training import Training
from data_platform.drafting.profile import Declared, Profile, Request, TableProfile
from data_platform.errors import PlatformError
from data_platform.ingestion.source import Batch, Overlap, Position, Probe, Reading, Source, TableOptions
from data_platform.lakehouse.settings import Settings

__all__ = [
    "Alerts",
    "Batch",
    "Dashboards",
    "Dataset",
    "DbtModels",
    "DebeziumSource",
    "Declared",
    "DeltaSource",
    "DltSource",
    "DuckLakeSource",
    "Export",
    "ExternalJob",
    "FileSource",
    "HbaseSource",
    "IcebergSource",
    "KafkaSource",
    "MongodbSource",
    "Overlap",
    "PlatformError",
    "Position",
    "Probe",
    "Profile",
    "Reading",
    "Request",
    "RestSource",
    "Scores",
    "Settings",
    "SingerSource",
    "Source",
    "SourceComponent",
    "SourceOptions",
    "SqlSource",
    "TableOptions",
    "TableProfile",
    "Training",
    "platform_definitions",
]
