"""The contracts of the lakehouse that `make_release_1` made, and of what the tests do to it later."""

from data_platform.contracts import Contract, Field, Instant


class Order(Contract):
    """An order of the shop."""

    order_id: int = Field(description="number of the order")
    amount: float = Field(ge=0, le=1000, unit="USD", description="what was paid")
    changed_at: Instant = Field(description="last change")


class GenerousOrder(Order):
    """An order of any amount."""

    amount: float = Field(ge=0, unit="USD", description="what was paid")


class Product(Contract):
    """What the shop sells."""

    sku: str = Field(description="number of the article")
    price: float = Field(gt=0, unit="USD", description="price")


class Pallet(Contract):
    """What stands in the depot."""

    pallet: int = Field(description="number of the pallet")
    sku: str = Field(description="what stands on it")
