"""Names of drafts: contracts are called by what one row is, and no two things alike."""

import pytest

from data_platform.drafting.naming import class_name, describe, distinct_names


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("movies", "Movie"),
        ("status", "Status"),
        ("news", "News"),
        ("addresses", "Address"),
        ("address", "Address"),
        ("data", "Data"),
        ("media", "Media"),
        ("order_items", "OrderItem"),
        ("sales_by_day", "SalesByDay"),
        ("series", "Series"),
        ("categories", "Category"),
        ("cookies", "Cookie"),
        ("boxes", "Box"),
        ("statuses", "Status"),
        ("analyses", "Analysis"),
        ("analysis", "Analysis"),
        ("people", "Person"),
        ("bus", "Bus"),
        ("buses", "Bus"),
        ("business", "Business"),
        ("sms", "Sms"),
        ("gps", "Gps"),
        ("lens", "Lens"),
        ("tax", "Tax"),
        ("weather", "Weather"),
        ("warehouses", "Warehouse"),
        ("fields", "FieldRow"),
        ("none", "NoneRow"),
        ("t_2024", "T2024"),
    ],
)
def test_a_contract_is_called_by_what_one_row_is(table: str, name: str) -> None:
    assert class_name(table) == name
    assert class_name(table).isidentifier()


def test_two_contracts_are_never_called_alike() -> None:
    taken: list[str] = []
    for table in ("order", "orders", "order", "orders"):
        taken.append(class_name(table, taken))
    assert taken == ["Order", "Orders", "Order2", "Orders2"] or len(set(taken)) == 4


@pytest.mark.parametrize(
    ("names", "fuller", "taken", "chosen"),
    [
        (["a", "b"], ["x_a", "x_b"], [], ["a", "b"]),
        (["orders", "orders"], ["sales_orders", "hr_orders"], [], ["sales_orders", "hr_orders"]),
        (["orders"], ["sales_orders"], ["orders"], ["sales_orders"]),
        (["t", "t"], ["t", "t"], [], ["t", "t_2"]),
        (["t"], ["t"], ["t", "t_2"], ["t_3"]),
    ],
)
def test_two_tables_are_never_called_alike(
    names: list[str], fuller: list[str], taken: list[str], chosen: list[str]
) -> None:
    assert distinct_names(names, fuller, taken) == chosen


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        ("created_at", "When it was created."),
        ("postal_code", "Postal code."),
        ("billing_postal_code", "Billing postal code."),
        ("product_code", "Code of the product."),
        ("customer_id", "Identifier of the customer."),
        ("is_open", "Whether it is open."),
        ("unit_price_usd", "Unit price."),
    ],
)
def test_a_column_is_described_as_far_as_its_name_tells(column: str, meaning: str) -> None:
    assert describe(column) == meaning
