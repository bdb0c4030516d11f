"""What a line of the log of predictions promises, for a source that reads it. Who writes them is `server`."""

from data_platform.contracts.contract import Contract, Field, Instant


class Prediction(Contract):
    """One prediction that a model gave over HTTP."""

    prediction_id: str = Field(unique=True, description="Number of the prediction, in no order.")
    model: str = Field(description="Name of the model.")
    model_version: int = Field(ge=1, description="Version of the model that answered.")
    predicted_at: Instant = Field(description="When it answered.")
    score: float = Field(description="What it said: a probability from 0 to 1, or a number.")
    inputs: str = Field(
        nullable=True, description="The row that it was asked about, in JSON, without columns that are private."
    )
