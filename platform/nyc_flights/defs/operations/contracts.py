"""What the staged tables of the operations database promise: flights, aircraft, bookings.
How raw rows get there is `staging`'s business."""

from datetime import UTC, datetime
from typing import ClassVar

from data_platform.contracts import Contract, Field, Instant, Reference

STATUSES = ["scheduled", "departed", "landed", "cancelled"]
CHANNELS = ["web", "agent", "phone"]
NEW_YORK = ["EWR", "JFK", "LGA"]
FIRST_BOOKING = datetime(2012, 1, 1, tzinfo=UTC)
"""The booking system is not older than this."""


class Flight(Contract):
    """One scheduled flight out of New York, in its latest known state."""

    flight_id: str = Field(
        unique=True,
        str_matches=r"^[A-Z0-9]{2}\d{1,4}-\d{8}-\d{4}$",
        description="Carrier, number, local date and local time of the scheduled departure: UA1545-20130101-0515.",
    )
    carrier: str = Field(
        str_matches=r"^[A-Z0-9]{2}$",
        references=Reference("reference/airlines", "carrier"),
        description="IATA code of the airline.",
    )
    flight_number: int = Field(ge=1, le=9999, description="Number of the flight, without the carrier.")
    tail_number: str = Field(
        nullable=True,
        str_matches=r"^[A-Z0-9]{3,7}$",
        references=Reference("operations/aircraft", "tail_number"),
        description="Registration of the aircraft; null until one is assigned. One in seven is not in the fleet list.",
    )
    origin: str = Field(
        isin=NEW_YORK,
        references=Reference("reference/airports", "airport"),
        description="Airport of departure.",
    )
    destination: str = Field(
        str_matches=r"^[A-Z0-9]{3}$",
        references=Reference("reference/airports", "airport"),
        description="Airport of arrival. Those in the Caribbean are not in the airports directory.",
    )
    scheduled_departure: Instant = Field(description="Departure according to the timetable.")
    departure: Instant = Field(nullable=True, description="Departure from the gate; null before it, or if cancelled.")
    dep_delay_min: float = Field(
        nullable=True, ge=-180, le=2880, unit="min", description="Departure against the timetable; early is negative."
    )
    arr_delay_min: float = Field(
        nullable=True,
        ge=-180,
        le=2880,
        unit="min",
        description="Arrival against the timetable; null until landed, and for flights that were diverted.",
    )
    air_time_min: float = Field(nullable=True, gt=0, le=1200, unit="min", description="Time in the air.")
    distance_mi: float = Field(gt=0, le=10_000, unit="mi", description="Distance between the two airports.")
    status: str = Field(isin=STATUSES, description="Stage of the flight. One that was diverted stays departed.")
    updated_at: Instant = Field(description="When operations last changed the row; may be visible six hours later.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:operations"}


class Aircraft(Contract):
    """One aircraft of the fleets that serve New York."""

    tail_number: str = Field(unique=True, str_matches=r"^[A-Z0-9]{3,7}$", description="Registration of the aircraft.")
    registered_year: int = Field(
        nullable=True, ge=1950, le=2030, description="Year of registration; null if not known (yet)."
    )
    type: str = Field(nullable=True, description="Kind of aircraft: Fixed wing multi engine, Rotorcraft, ...")
    manufacturer: str = Field(nullable=True, description="Manufacturer as registered; spelt in more than one way.")
    model: str = Field(nullable=True, description="Model as registered.")
    engines: int = Field(nullable=True, ge=1, le=8, description="Number of engines.")
    seats: int = Field(nullable=True, ge=1, le=900, description="Number of seats.")
    speed_mph: float = Field(
        nullable=True, gt=0, le=1500, unit="mph", description="Average cruising speed; rarely known."
    )
    engine: str = Field(nullable=True, description="Kind of engine: Turbo-fan, Reciprocating, ...")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:operations"}


class Booking(Contract):
    """One seat sold on a flight."""

    booking_id: int = Field(unique=True, ge=1, description="Number of the booking.")
    flight_id: str = Field(
        references=Reference("operations/flights", "flight_id", orphans="quarantine"),
        description="The flight that was booked.",
    )
    passenger_name: str = Field(nullable=True, private=True, description="Keyed hash of the passenger's name.")
    passenger_email: str = Field(nullable=True, private=True, description="Keyed hash of the e-mail address.")
    passenger_phone: str = Field(nullable=True, private=True, description="Keyed hash of the telephone number.")
    fare_usd: float = Field(gt=0, le=20_000, unit="USD", description="Fare paid.")
    booked_at: Instant = Field(ge=FIRST_BOOKING, description="When the booking was made.")
    channel: str = Field(isin=CHANNELS, description="Where the booking was made.")
    campaign: str = Field(nullable=True, description="Campaign that led to the booking; null if none did.")
    updated_at: Instant = Field(description="When the booking was last changed.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:sales"}
