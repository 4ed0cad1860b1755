"""Kubernetes' cases for quantities."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from vector_table import Check, Row, assert_only_left_out, differences

from wharfinger.core.errors import Malformed
from wharfinger.core.quantity import Format, Quantity

LEFT_OUT = {
    "upstream cuts a negative amount to 64 bits before it rounds, or rounds it towards zero; ours is exact": """
        133.value 133.milli 134.value 136.value 136.milli 188.value 188.milli 189.value 189.milli
        190.value 190.milli 191.value 191.milli 192.value 192.milli 193.value 193.milli 194.value
        194.milli 195.value 195.milli 196.value 196.milli 200.value 202.value 203.value 203.milli
        204.value 204.milli 478.value 479.value 479.milli 480.value 480.milli 481.value 481.milli
        649.value 651.value 655.value 661.value 667.value 669.value 671.value 673.value 709.value
        711.value 713.value 750.value 750.milli 753.value 753.milli 755.value 755.milli 767.value
        767.milli 769.value 769.milli 773.value 773.milli 775.value 775.milli 797.value 797.milli
        799.value 799.milli 822.value 824.value 824.milli 850.value 850.milli 994.value 1000.value
        1000.milli 1012.value 1014.value 1016.value 1016.milli 1020.value 1020.milli 1035.value
        1037.value 1039.value 1043.value 1043.milli 1046.value 1046.milli 1048.value 1048.milli
        1050.value 1050.milli 1052.value 1052.milli 1054.value 1054.milli 1056.value 1056.milli
        1058.value 1058.milli 1060.value 1062.value 1062.milli 1068.value 1068.milli 1072.value
        1072.milli 1074.value 1074.milli 1076.value 1076.milli 1078.value 1080.value 1082.value
        1084.value 1086.value 1088.value 1088.milli 1090.value 1090.milli 1096.value 1096.milli
        1100.value 1102.value 1104.value 1116.value 1116.milli 1118.value 1124.value 1150.value
        1150.milli 1176.value 1176.milli 1227.value 1229.value 1229.milli 1234.value 1234.milli
        1246.value 1246.milli 1248.value 1248.milli 1252.value 1252.milli 1254.value 1254.milli
        1282.value 1282.milli 1310.value 1310.milli 1330.value 1330.milli 1336.value 1336.milli
        1338.value 1338.milli
    """,
    "finer than a nano: only Go code can build such a value, no text does": """
        342.raised 343.raised 346.raised 347.raised 348.raised 349.raised 356.raised 357.raised
        358.raised 359.raised
    """,
    "upstream loses the suffix beyond its largest one and prints a number that is wrong by powers of 1000": """
        961.canonical 961.marshal 962.canonical 962.marshal 1675.product 2100.product 2172.product
        2384.product
    """,
    "a decoded number does not keep how it was written: the amount is equal, the format is not": """
        1398.canonical 1398.format 1399.canonical 1399.format
    """,
    "the zero value has a format here, which prints the same": """
        537.negative 1402.format
    """,
}


def quantity(row: Row) -> Quantity:
    """Return the quantity that a row spells by decimal and format."""
    sign, digits = (-1, row["decimal"][1:]) if row["decimal"].startswith("-") else (1, row["decimal"])
    whole, _, fraction = digits.partition(".")
    if len(fraction) > 9:
        raise ValueError("finer than a nano")
    form = Format.DECIMAL_SI if row["format"] not in {f.value for f in Format} else Format(row["format"])
    return Quantity(sign * int(whole + fraction.ljust(9, "0")), form)


def shown(value: Quantity) -> dict[str, str]:
    """Return what a row says of a result."""
    return {"decimal": value.decimal, "format": value.format.value, "canonical": str(value)}


def of_text(row: Row) -> Iterator[Check]:
    """Check a row of `parse` or `unmarshalJSON`."""
    try:
        got = Quantity.parse(row["input"]) if row["op"] == "parse" else Quantity.of_json(json.loads(row["input"]))
    except Malformed:
        yield "refused", True, "error" in row
        return
    yield "refused", False, "error" in row
    yield "canonical", str(got), row["canonical"]
    yield "decimal", got.decimal, row["decimal"]
    yield "format", got.format.value, row["format"]
    if row["op"] == "parse":
        yield "marshal", str(got), row["marshalJSON"]
        yield "sign", (got.nanos > 0) - (got.nanos < 0), row["sign"]
        yield from of_float(got, row)
        if row["value"] is not None:
            yield "value", got.scaled(), row["value"]
        if row["milliValue"] is not None:
            yield "milli", got.scaled(-3), row["milliValue"]


def of_float(got: Quantity, row: Row) -> Iterator[Check]:
    """Check the float of a quantity: exactly, and within 2 units in the last place of upstream's approximation."""
    yield "float", float(got), float(row["asFloat64Slow"])
    near = float(row["asApproximateFloat64"])
    yield "approximate", abs(float(got) - near) <= abs(near) * 5e-16 or float(got) == near, True


def checks(row: Row) -> Iterator[Check]:
    """Check one row of quantity.jsonl."""
    match row["op"]:
        case "parse" | "unmarshalJSON":
            yield from of_text(row)
        case "add":
            yield "sum", shown(quantity(row["a"]) + quantity(row["b"])), row["result"]
        case "sub":
            yield "difference", shown(quantity(row["a"]) - quantity(row["b"])), row["result"]
        case "mul":
            yield "product", shown(quantity(row["a"]) * row["b"]), row["result"]
        case "neg":
            yield "negative", shown(-quantity(row["a"])), row["result"]
        case "cmp":
            a, b = quantity(row["a"]), quantity(row["b"])
            yield "order", (a > b) - (a < b), row["result"]
        case "string":
            a = quantity(row["a"])
            yield "text", [str(a), a.format.value], [row["canonical"], row["formatAfter"]]
        case "float64":
            yield from of_float(quantity(row["a"]), row)
        case "roundUp":
            a = Quantity.parse(row["input"])
            got = a.round_up(row["scale"])
            yield "rounded", shown(got), row["result"]
            yield "lossless", got == a, row["ok"]
        case "split":
            got = Quantity.parse(row["input"])
            sign = "" if row["positive"] else "-"
            yield "parts", got, Quantity.parse(f"{sign}{row['integer']}.{row['fraction']}{row['suffix']}")
        case _:
            yield from of_scale(row)


def of_scale(row: Row) -> Iterator[Check]:
    """Check a row about powers of ten."""
    match row["op"]:
        case "newQuantity":
            got: Any = Quantity.of(row["value"], form=form_of(row))
            yield "new", [str(got), got.decimal], [row["canonical"], row["decimal"]]
        case "newMilliQuantity":
            got = Quantity.of(row["value"], -3, form_of(row))
            yield "new", [str(got), got.decimal], [row["canonical"], row["decimal"]]
        case "newScaledQuantity":
            got = Quantity.of(row["value"], row["scale"])
            yield "new", [str(got), got.decimal], [row["canonical"], row["decimal"]]
        case "scaledValue":
            yield "scaled", Quantity.of(row["value"], row["fromScale"]).scaled(row["toScale"]), row["result"]
        case "scaledValueInternal":
            got = Quantity.of(int(row["unscaled"]), -row["scale"])
            yield "scaled", got.scaled(-row["newScale"]), row["result"]
        case unknown:
            raise ValueError(unknown)


def form_of(row: Row) -> Format:
    """Return a row's format; what is no format prints as upstream's last resort, the exponent."""
    known = {f.value: f for f in Format}
    return known.get(row["format"], Format.DECIMAL_EXPONENT)


def test_quantities_parse_compute_and_print_as_kubernetes_does() -> None:
    """Every case of quantity.jsonl holds, but for those listed with their reason."""
    count, found = differences("apimachinery/quantity.jsonl", checks)
    assert count > 9000
    assert_only_left_out(found, LEFT_OUT)
