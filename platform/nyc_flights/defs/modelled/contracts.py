"""What the modelled tables promise: the contract of each dbt model, by which its build is audited before publication.
Types, ranges and keys are here; what takes more than one table (relations, totals) is tested by dbt.
"""

from typing import Any, ClassVar

import polars as pl

from data_platform.contracts import Contract, Field, Instant

STATUSES = ("scheduled", "departed", "landed", "cancelled")
DEVICES = ("mobile", "desktop", "bot", "other")
WIND_BANDS = ("unknown", "under 10 mph", "10 to 20 mph", "20 to 30 mph", "30 mph and over")
VISIBILITY_BANDS = ("unknown", "under 1 mi", "1 to 3 mi", "3 to 5 mi", "over 5 mi")
PRECIPITATION_BANDS = ("unknown", "none", "light", "moderate", "heavy")


def delay(description: str) -> Any:
    """A delay, or a statistic of delays: from three hours early to two days late, null where there is none."""
    return Field(unit="min", nullable=True, ge=-180, le=2880, description=description)


def count(description: str) -> Any:
    """How many there are; never null."""
    return Field(unit="count", ge=0, description=description)


def share(description: str, *, nullable: bool = False) -> Any:
    """A part of a whole; null where there is no whole, if that may be."""
    return Field(unit="0 to 1", nullable=nullable, ge=0, le=1, description=description)


def weather(description: str, unit: str, low: float, high: float) -> Any:
    """A value of the newest observation; null where there is none, or it was not measured."""
    return Field(unit=unit, nullable=True, ge=low, le=high, description=f"{description}, as last published")


class Modelled(Contract):
    """Base of the contracts of modelled tables: all have one owner."""

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:analytics"}


class DimAirline(Modelled):
    """Airlines, one row each, as last delivered."""

    carrier: str = Field(unique=True, description="airline designator (two letters or digits); the key")
    airline_name: str = Field(description="name of the airline")


class DimAirport(Modelled):
    """Airports, one row each, as last delivered."""

    airport: str = Field(unique=True, description="FAA code; the key")
    airport_name: str = Field(description="name of the airport")
    latitude: float = Field(unit="degrees north", ge=-90, le=90, description="latitude")
    longitude: float = Field(unit="degrees east", ge=-180, le=180, description="longitude")
    altitude_ft: int = Field(unit="ft", ge=-1_500, le=20_000, description="altitude above sea level")
    utc_offset_h: float = Field(unit="h", ge=-12, le=14, description="standard time less UTC")
    dst: str = Field(description="daylight saving rule (A United States, U unknown, N none)")
    timezone: str = Field(nullable=True, description="IANA time zone; null when not given or not known to DuckDB")


class DimAircraft(Modelled):
    """Aircraft with their history (type 2): one row for each version of a plane's registration. Join a fact by
    tail_number and an instant with valid_from <= instant and (valid_to is null or instant < valid_to)."""

    aircraft_key: str = Field(unique=True, description="tail_number and version, joined by a colon; the key")
    tail_number: str = Field(description="registration of the plane")
    version: int = Field(ge=1, description="number of the version, from 1 for each plane")
    valid_from: Instant = Field(
        description="instant from which the version holds, UTC; 1900-01-01 for the first, nothing earlier being known"
    )
    valid_to: Instant = Field(
        nullable=True, description="instant from which the version no longer holds, UTC; null while it is current"
    )
    is_current: bool = Field(
        description="whether the version is the present one; no version is, of a plane gone from the source"
    )
    registered_year: int = Field(nullable=True, ge=1903, le=2100, description="year of manufacture")
    type: str = Field(nullable=True, description="kind of aircraft")
    manufacturer: str = Field(nullable=True, description="manufacturer")
    model: str = Field(nullable=True, description="model")
    engines: int = Field(nullable=True, ge=0, le=12, description="number of engines")
    seats: int = Field(nullable=True, ge=0, le=1_000, description="number of seats")
    speed_mph: float = Field(unit="mph", nullable=True, ge=0, le=2_000, description="average cruising speed")
    engine: str = Field(nullable=True, description="kind of engine")

    class Config(Modelled.Config):
        unique: ClassVar = ["tail_number", "version"]


class FctFlight(Modelled):
    """Flights, one row for each scheduled leg, as last updated. Incremental: flights with a newer _staging_id replace
    their rows, flights that vanished from the staged table are deleted. Keys may be missing in the dimensions."""

    flight_id: str = Field(
        unique=True,
        description="carrier, flight number, local date and local scheduled time of departure; the key",
    )
    carrier: str = Field(description="airline designator, see dim_airline")
    flight_number: int = Field(ge=1, description="flight number of the carrier")
    tail_number: str = Field(
        nullable=True, description="registration of the plane, see dim_aircraft; null when not reported"
    )
    origin: str = Field(description="airport of departure (FAA code), see dim_airport")
    destination: str = Field(description="airport of arrival (FAA code), see dim_airport")
    scheduled_departure: Instant = Field(description="scheduled departure, UTC")
    departure: Instant = Field(nullable=True, description="actual departure, UTC; null until it happens")
    dep_delay_min: float = delay("departure delay; negative when early, null until departure")
    arr_delay_min: float = delay("arrival delay; negative when early, null until landing")
    air_time_min: float = Field(
        unit="min", nullable=True, ge=0, le=1_440, description="time in the air; null until landing"
    )
    distance_mi: float = Field(unit="mi", ge=0, le=12_500, description="distance between the airports")
    status: str = Field(isin=STATUSES, description="scheduled, departed, landed or cancelled")
    is_departed: bool = Field(description="whether the flight has left (departed or landed)")
    is_cancelled: bool = Field(description="whether the flight was cancelled")
    is_departed_on_time: bool = Field(
        nullable=True,
        description=(
            "whether the flight left less than 15 min late, as the Bureau of Transportation Statistics counts it; "
            "null if it has not left or the delay is not known"
        ),
    )
    updated_at: Instant = Field(description="instant of the last update at the source, UTC")
    staging_id: int = Field(
        alias="_staging_id",
        ge=1,
        description="staging that wrote the staged row; the largest is the watermark of the fact",
    )


class FctWebVisit(Modelled):
    """Requests to the booking site, one row each. Incremental: requests with a newer _staging_id replace their rows,
    those that vanished from the staged table are deleted."""

    request_id: str = Field(unique=True, description="identity of the request; the key")
    visited_at: Instant = Field(description="instant of the request, UTC")
    client_ip: str = Field(private=True, description="keyed hash of the address of the client")
    path: str = Field(description="path of the URL")
    origin_airport: str = Field(nullable=True, description="airport of departure searched for (FAA code)")
    destination_airport: str = Field(nullable=True, description="airport of arrival searched for (FAA code)")
    search_terms: str = Field(nullable=True, private=True, description="words searched for")
    utm_source: str = Field(nullable=True, description="where the request came from, as tagged in the URL")
    utm_medium: str = Field(nullable=True, description="medium of the campaign, as tagged in the URL")
    utm_campaign: str = Field(nullable=True, description="campaign, as tagged in the URL")
    booking_id: int = Field(nullable=True, description="booking shown by the request")
    status: int = Field(ge=100, le=599, description="HTTP status")
    device: str = Field(isin=DEVICES, description="mobile, desktop, bot or other")
    response_bytes: int = Field(unit="bytes", nullable=True, ge=0, description="size of the response")
    is_bot: bool = Field(description="whether a robot made the request")
    is_page: bool = Field(description="whether the request is for a page, not for a part of one (below /assets/)")
    is_search: bool = Field(description="whether the request is a search for flights")
    is_confirmation: bool = Field(description="whether the request is the confirmation of a booking")
    staging_id: int = Field(
        alias="_staging_id",
        ge=1,
        description="staging that wrote the staged row; the largest is the watermark of the fact",
    )


class DepartureFeatures(Modelled):
    """What is known of each flight three hours before its scheduled departure, and whether it left more than 15 minutes
    late: one row for each flight from that instant on. Nothing that was reported later enters."""

    flight_id: str = Field(unique=True, description="carrier, number, local date and time of departure; the key")
    scheduled_departure: Instant = Field(description="scheduled departure, UTC")
    predicted_at: Instant = Field(description="three hours before: nothing that was reported later enters, UTC")
    carrier: str = Field(description="airline designator, see dim_airline")
    origin: str = Field(description="airport of departure (FAA code), see dim_airport")
    destination: str = Field(description="airport of arrival (FAA code), see dim_airport")
    distance_mi: float = Field(unit="mi", ge=0, le=12_500, description="distance between the airports")
    departure_hour: int = Field(ge=0, le=23, description="hour of the scheduled departure, by New York's clock")
    weekday: int = Field(ge=1, le=7, description="day of the week, by New York's clock; 1 is Monday")
    departures_in_hour: int = Field(
        unit="count", ge=1, description="departures scheduled from the airport in the same hour, this one included"
    )
    temperature_f: float = weather("air temperature", "°F", -40, 130)
    humidity_pct: float = weather("relative humidity", "%", 0, 100)
    wind_speed_mph: float = weather("mean wind speed", "mph", 0, 200)
    wind_gust_mph: float = weather("strongest gust; null also without one", "mph", 0, 250)
    precipitation_in: float = weather("rain and melted snow", "in", 0, 20)
    pressure_mb: float = weather("pressure at sea level", "mb", 850, 1_100)
    visibility_mi: float = weather("visibility", "mi", 0, 100)
    observation_age_min: float = Field(
        unit="min",
        nullable=True,
        ge=0,
        le=360,
        description="age of the newest observation that was published; null if none is six hours old or newer",
    )
    aircraft_gap_min: float = Field(
        unit="min",
        nullable=True,
        ge=0,
        le=1_620,
        description="time since the plane's previous leg from New York was scheduled; null if there is none of a day",
    )
    previous_leg_delay_min: float = delay("departure delay of that leg; null if it was not reported to have left")
    previous_leg_overdue_min: float = Field(
        unit="min",
        nullable=True,
        ge=0,
        le=1_440,
        description="how long that leg is overdue without a report that it left, 0 before it is due; null if it left",
    )
    origin_late_share_3h: float = share(
        "share that left late of the departures from the airport reported in the last 3 hours", nullable=True
    )
    carrier_late_share_6h: float = share(
        "share that left late of the departures of the carrier reported in the last 6 hours", nullable=True
    )
    carrier_late_share_7d: float = share(
        "share that left late of the departures of the carrier reported in the last 7 days", nullable=True
    )
    route_late_share_28d: float = share(
        "share that left late of the departures on the route reported in the last 28 days", nullable=True
    )
    left_late: bool = Field(
        nullable=True, description="whether it left more than 15 min late; null until it leaves, and if it never does"
    )


class Departures(Modelled):
    """What every mart of flights says of a group of them."""

    flights: int = count("flights scheduled, whatever became of them")
    cancelled: int = count("flights cancelled")
    departed: int = count("flights that have left")
    departed_on_time_share: float = share(
        "share of the departed flights that left less than 15 min late; null when none has left", nullable=True
    )
    mean_dep_delay_min: float = delay("mean departure delay of the flights that have one")
    median_dep_delay_min: float = delay("median departure delay of the flights that have one")
    p90_dep_delay_min: float = delay("90th percentile of the departure delay, interpolated")


class MartPunctuality(Departures):
    """How punctual is each carrier on each route? One row for each carrier, route and month."""

    carrier: str = Field(description="airline designator")
    airline_name: str = Field(description="name of the airline; unknown when dim_airline lacks the carrier")
    origin: str = Field(description="airport of departure (FAA code)")
    destination: str = Field(description="airport of arrival (FAA code)")
    month: pl.Date = Field(
        description=(
            "first day of the month of scheduled departure, in the time zone of the origin (UTC when that is not known)"
        )
    )
    mean_arr_delay_min: float = delay("mean arrival delay of the flights that have one")
    median_arr_delay_min: float = delay("median arrival delay of the flights that have one")
    p90_arr_delay_min: float = delay("90th percentile of the arrival delay, interpolated")

    class Config(Modelled.Config):
        unique: ClassVar = ["carrier", "origin", "destination", "month"]


class MartWeatherDelay(Departures):
    """How much does the weather at the origin delay departures? One row for each combination of bands."""

    wind_band: str = Field(isin=WIND_BANDS, description="wind speed at the origin in the scheduled hour")
    visibility_band: str = Field(
        isin=VISIBILITY_BANDS,
        description=(
            "visibility at the origin in the scheduled hour, by flight category of the Federal Aviation Administration"
        ),
    )
    precipitation_band: str = Field(
        isin=PRECIPITATION_BANDS,
        description="precipitation at the origin in the scheduled hour (light to 0.1 in, moderate to 0.3 in)",
    )

    class Config(Modelled.Config):
        unique: ClassVar = ["wind_band", "visibility_band", "precipitation_band"]


class MartCampaignConversion(Modelled):
    """Which campaigns sell? One row for each month, source and campaign. A visit and its booking belong to the campaign
    by which the same client last came within 24 hours."""

    month: pl.Date = Field(description="first day of the month of the visits, UTC")
    utm_source: str = Field(description="source of the campaign last come by; (none) without one")
    utm_campaign: str = Field(description="campaign last come by; (none) without one")
    visits: int = Field(unit="count", ge=1, description="pages shown to people")
    searches: int = count("visits that search for flights")
    confirmed_bookings: int = count("bookings first confirmed by these visits")
    unmatched_bookings: int = count("confirmed bookings that the booking system does not know (yet)")
    conversion_rate: float = share("confirmed bookings for each visit")
    revenue_usd: float = Field(unit="USD", ge=0, description="fares of the confirmed bookings that are known")

    class Config(Modelled.Config):
        unique: ClassVar = ["month", "utm_source", "utm_campaign"]


CONTRACTS: dict[str, type[Contract]] = {
    "dim_airline": DimAirline,
    "dim_airport": DimAirport,
    "dim_aircraft": DimAircraft,
    "fct_flight": FctFlight,
    "fct_web_visit": FctWebVisit,
    "departure_features": DepartureFeatures,
    "mart_punctuality": MartPunctuality,
    "mart_weather_delay": MartWeatherDelay,
    "mart_campaign_conversion": MartCampaignConversion,
}
"""The contract of each dbt model, by the model's name."""
