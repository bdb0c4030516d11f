"""What the dataset of late departures promises. How its features come about is the model `departure_features`."""

from data_platform.contracts import Field
from nyc_flights.defs.modelled.contracts import DepartureFeatures


class LateDeparture(DepartureFeatures):
    """Departures, with what was known of each three hours before, and whether it left more than 15 minutes late."""

    left_late: bool = Field(description="the label: whether it left more than 15 min late")
