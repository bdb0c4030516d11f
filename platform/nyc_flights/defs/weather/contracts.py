"""What the staged observations of the weather service promise. Ranges are those that instruments and the climate of
New York allow, with room to spare."""

from typing import ClassVar

from data_platform.contracts import Contract, Field, Instant

STATIONS = ["EWR", "JFK", "LGA"]


class Observation(Contract):
    """The weather at one of New York's three airports at one hour, in its latest published version."""

    station: str = Field(isin=STATIONS, description="Airport where it was observed.")
    observed_at: Instant = Field(description="Hour of the observation.")
    temperature_f: float = Field(nullable=True, ge=-40, le=130, unit="°F", description="Air temperature.")
    dewpoint_f: float = Field(nullable=True, ge=-60, le=100, unit="°F", description="Dew point.")
    humidity_pct: float = Field(nullable=True, ge=0, le=100, unit="%", description="Relative humidity.")
    wind_dir_deg: float = Field(
        nullable=True, ge=0, le=360, unit="°", description="Direction that the wind comes from; null if it varies."
    )
    wind_speed_mph: float = Field(nullable=True, ge=0, le=200, unit="mph", description="Mean wind speed.")
    wind_gust_mph: float = Field(nullable=True, ge=0, le=250, unit="mph", description="Strongest gust; null if none.")
    precipitation_in: float = Field(nullable=True, ge=0, le=20, unit="in", description="Rain and melted snow.")
    pressure_mb: float = Field(nullable=True, ge=850, le=1100, unit="mb", description="Pressure at sea level.")
    visibility_mi: float = Field(nullable=True, ge=0, le=100, unit="mi", description="Visibility, reported up to 10.")
    published_at: Instant = Field(description="When this version was published.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:weather"}
        unique: ClassVar = ["station", "observed_at"]
