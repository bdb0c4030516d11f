"""Machine learning on the tables of the lakehouse. Each part has a package of its own here; assets are made of them by
the components. What is named here is what functions that train models may rely on."""

from data_platform.ml.registry.inputs import matrix

__all__ = ["matrix"]
