"""What the staged reference tables promise: airports and airlines, as the last delivered files mean them."""

from typing import ClassVar

from data_platform.contracts import Contract, Field


class Airport(Contract):
    """One airport of the directory: those of the United States; others are missing from it."""

    airport: str = Field(unique=True, str_matches=r"^[A-Z0-9]{3,4}$", description="FAA code.")
    name: str = Field(str_length={"min_value": 1, "max_value": 60}, description="Name, in plain punctuation.")
    latitude: float = Field(ge=-90, le=90, unit="°", description="Degrees north.")
    longitude: float = Field(ge=-180, le=180, unit="°", description="Degrees east.")
    altitude_ft: int = Field(ge=-1_500, le=20_000, unit="ft", description="Height above sea level.")
    utc_offset_h: float = Field(ge=-12, le=14, unit="h", description="Standard time against UTC.")
    dst: str = Field(
        isin=["A", "N", "U"], description="Daylight saving: A as in the United States, N none, U not known."
    )
    timezone: str = Field(nullable=True, str_matches=r"^[A-Z][A-Za-z_]+/[A-Za-z_/]+$", description="IANA time zone.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:network"}


class Airline(Contract):
    """One airline, under its present name."""

    carrier: str = Field(unique=True, str_matches=r"^[A-Z0-9]{2}$", description="IATA code.")
    name: str = Field(str_length={"min_value": 1, "max_value": 100}, description="Name.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:network"}
