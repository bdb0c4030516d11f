"""What the staged events of the gates promise."""

from typing import ClassVar

from data_platform.contracts import Contract, Field, Instant, Reference

EVENTS = ["assigned", "changed", "boarding", "closed"]


class Event(Contract):
    """One thing that happened at the gate of a flight; those that were taken back are not here."""

    event_id: str = Field(unique=True, description="The flight and the event: UA1545-20130101-0515/boarding.")
    flight_id: str = Field(references=Reference("operations/flights", "flight_id"), description="The flight.")
    event: str = Field(isin=EVENTS, description="A gate was assigned or changed, boarding began, the door was closed.")
    gate: str = Field(str_matches=r"^[A-C]\d{1,2}$", description="The gate: its pier and number.")
    at: Instant = Field(description="When it happened; the message may come a day later.")

    class Config(Contract.Config):
        metadata: ClassVar = {"owner": "team:operations"}
