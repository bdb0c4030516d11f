"""What the staged access log of the booking site promises: one row for each request that could be read."""

from typing import ClassVar

from data_platform.contracts import Contract, Field, Instant, Reference

DEVICES = ["mobile", "desktop", "bot", "other"]


class Visit(Contract):
    """One request to the booking site, taken apart."""

    request_id: str = Field(unique=True, str_length={"min_value": 1}, description="Number that the server gave it.")
    visited_at: Instant = Field(description="When the request was answered.")
    client_ip: str = Field(private=True, description="Keyed hash of the client's address.")
    path: str = Field(str_startswith="/", description="Path of the URL, without its parameters.")
    origin_airport: str = Field(
        nullable=True, str_matches=r"^[A-Z0-9]{3}$", description="Airport searched from; null if it was no search."
    )
    destination_airport: str = Field(nullable=True, str_matches=r"^[A-Z0-9]{3}$", description="Airport searched to.")
    search_terms: str = Field(nullable=True, description="What was typed into the search field.")
    utm_source: str = Field(nullable=True, description="Campaign tag: who sent the visitor.")
    utm_medium: str = Field(nullable=True, description="Campaign tag: by what means.")
    utm_campaign: str = Field(nullable=True, description="Campaign tag: for which campaign.")
    booking_id: int = Field(
        nullable=True,
        ge=1,
        references=Reference("operations/bookings", "booking_id"),
        description="The booking that this visit confirms; null for all other visits.",
    )
    status: int = Field(ge=100, le=599, description="HTTP status of the answer.")
    device: str = Field(isin=DEVICES, description="Kind of device, by its user agent.")
    bytes: int = Field(nullable=True, ge=0, unit="B", description="Size of the answer's body; null if it had none.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:web"}
