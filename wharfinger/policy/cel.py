"""CEL: the language of policies, device selectors and validations, behind one door.

An `Environment` declares variables and compiles expressions; a `Program` evaluates one. Google's cel-cpp
(cel-expr-python) parses, expands macros and checks types; evaluation is ours (`celprogram`), because that
library's evaluator cannot hold quantities and versions, does not bound memory (a 600-character expression
takes gigabytes) and returns an error as an ordinary value, a truthy string.

An error is never a yes: `evaluate` and `holds` raise `Unevaluable`. Work is bounded by a budget. Compiled programs
are kept, up to a limit. Threads may share everything here: compiling is serialised by a lock, evaluating shares
nothing.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final

from wharfinger.core.document import Json
from wharfinger.core.errors import Invalid, Malformed, TooLarge, excerpt
from wharfinger.core.quantity import Quantity
from wharfinger.policy import celsyntax
from wharfinger.policy.celfront import LIBRARIES, check_type, front_end
from wharfinger.policy.celprogram import Frame, Step, assemble
from wharfinger.policy.celvalues import Domains, Exhausted, Fault, Value, parse_semver

MAX_TEXT: Final = 10 * 1024
"""Bytes of an expression (resource.k8s.io/v1, CELSelectorExpressionMaxLength)."""
DEFAULT_BUDGET: Final = 100_000
"""Units of work of one evaluation: about 30 ms at most. An honest selector takes less than 200."""
MAX_KEPT: Final = 1024
"""Compiled programs that one environment keeps."""


class Unevaluable(Invalid):
    """An evaluation ended in an error, or ran out of work: neither yes nor no."""

    code = "Unevaluable"


class Exceeded(Unevaluable):
    """An evaluation took more work than its budget."""


class Program:
    """One compiled expression. Immutable; threads may share it."""

    __slots__ = ("_slots", "_step", "result_type", "text")

    def __init__(self, text: str, result_type: str, step: Step, slots: int) -> None:
        self.text = text
        self.result_type = result_type
        self._step = step
        self._slots = slots

    def evaluate(self, variables: Mapping[str, Value], *, budget: int = DEFAULT_BUDGET) -> Value:
        """Return the value of the expression over `variables`, by the names that the environment declares.

        Raises `Unevaluable` for an error in the evaluation and when `budget` is used up (then `Exceeded`).
        """
        return self.metered(variables, budget=budget)[0]

    def metered(self, variables: Mapping[str, Value], *, budget: int = DEFAULT_BUDGET) -> tuple[Value, int]:
        """Return the value of the expression and the work it took.

        Raises `Unevaluable` for an error in the evaluation, and `Exceeded` when `budget` is used up.
        """
        frame = Frame(variables, self._slots, budget)
        try:
            return self._step(frame), budget - frame.meter.left
        except Fault as fault:
            raise Unevaluable(f"CEL {excerpt(self.text)}: {fault}") from fault
        except (Exhausted, RecursionError, MemoryError) as error:
            raise Exceeded(f"CEL {excerpt(self.text)}: expected at most {budget} units of work") from error

    def holds(self, variables: Mapping[str, Value], *, budget: int = DEFAULT_BUDGET) -> bool:
        """Return whether the expression is true. Raises `Unevaluable` for an error and for any value but a bool."""
        value = self.evaluate(variables, budget=budget)
        if type(value) is not bool:
            raise Unevaluable(f"CEL {excerpt(self.text)}: expected a bool, got {excerpt(value)}")
        return value


class Environment:
    """Declared variables and libraries, in which expressions are compiled.

    `variables` maps names (dotted ones too) to types: `bool`, `int`, `uint`, `double`, `string`, `bytes`, `dyn`,
    `quantity`, `semver`, `list(T)`, `map(K, V)`. Raises `Invalid` for a type or library that does not exist.
    """

    def __init__(self, variables: Mapping[str, str], *, libraries: Collection[str] = LIBRARIES) -> None:
        unknown = sorted(set(libraries) - LIBRARIES)
        if unknown:
            raise Invalid(f"expected CEL libraries of {', '.join(sorted(LIBRARIES))}, got {excerpt(unknown[0])}")
        for name, text in variables.items():
            check_type(name, text)
        self._variables = dict(variables)
        self._libraries = frozenset(libraries)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, bool], Program | Invalid] = OrderedDict()

    def compile(self, text: str, *, boolean: bool = True) -> Program:
        """Return the program of the expression `text`; with `boolean`, one whose type is bool or not known before.

        Raises `Invalid` for a syntax or type error, an undeclared name, a function that is not offered, and
        nesting that is too deep; `TooLarge` for a text over `MAX_TEXT` bytes.
        """
        if len(text.encode("utf-8", "surrogatepass")) > MAX_TEXT:
            raise TooLarge(f"expected a CEL expression of at most {MAX_TEXT} bytes, got {len(text)} characters")
        with self._lock:
            kept = self._kept.get((text, boolean))
            if kept is None:
                kept = self._compiled(text, boolean)
                self._kept[text, boolean] = kept
                if len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end((text, boolean))
        if isinstance(kept, Invalid):
            raise kept.with_traceback(None)
        return kept

    @functools.cached_property
    def _front(self) -> Any:
        return front_end(self._variables, self._libraries)

    def _compiled(self, text: str, boolean: bool) -> Program | Invalid:
        try:
            checked = self._front.compile(text)
            result_type, serialized = str(checked.return_type().name()), checked.serialize()
        # The binding raises RuntimeError for what does not compile, ValueError for text that is not Unicode.
        except (RuntimeError, ValueError, MemoryError) as error:
            return Invalid(f"CEL {excerpt(text)} does not compile: {excerpt(str(error), 300)}")
        if boolean and result_type not in ("BOOL", "DYN"):
            return Invalid(f"CEL {excerpt(text)} must be a bool, not {result_type.lower()}")
        try:
            step, slots = assemble(celsyntax.read(serialized))
        except Invalid as error:
            return Invalid(f"CEL {excerpt(text)}: {error.message}")
        except RecursionError:
            return Invalid(f"CEL {excerpt(text)}: expected at most {celsyntax.MAX_DEPTH} levels")
        return Program(text, result_type, step, slots)


DEVICE: Final = Environment(
    {
        "device.driver": "string",
        "device.attributes": "map(string, map(string, dyn))",
        "device.capacity": "map(string, map(string, quantity))",
    }
)
"""Kubernetes' environment of device selectors (resource.k8s.io/v1, CELDeviceSelector)."""

ACCESS: Final = Environment(
    {"identity": "string", "tenant": "string", "verb": "string", "device": "string", "object": "map(string, string)"}
)
"""The environment of an AccessPolicy's condition."""


def condition(text: str, variables: Mapping[str, Json]) -> bool:
    """Evaluate the condition of an AccessPolicy: the port `policy.access.Condition`. Raises `Invalid`, `TooLarge`."""
    return ACCESS.compile(text).holds(variables)


def device_variables(driver: str, device: Mapping[str, Json]) -> dict[str, Value]:
    """Return the variables of `DEVICE` for one device of a ResourceSlice (its v1 form).

    Names without a domain belong to `driver`'s. A domain that the device lacks is an empty map when it is looked
    up. Raises `Invalid` for an attribute or capacity that is no value of the API.
    """
    attributes, capacity = Domains(), Domains()
    try:
        for name, attribute in (device.get("attributes") or {}).items():
            domain, key = _qualified(name, driver)
            attributes.setdefault(domain, {})[key] = _attribute(attribute)
        for name, amount in (device.get("capacity") or {}).items():
            domain, key = _qualified(name, driver)
            capacity.setdefault(domain, {})[key] = Quantity.of_json(amount["value"])
    except (Fault, Malformed, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"device {excerpt(device.get('name'))}: {error}") from error
    return {"device.driver": driver, "device.attributes": attributes, "device.capacity": capacity}


def _attribute(attribute: Mapping[str, Json]) -> Value:
    for kind in ("string", "int", "bool"):
        value = attribute.get(kind)
        if value is not None:
            return value
    if attribute.get("version") is not None:
        return parse_semver(attribute["version"])
    for kind in ("strings", "ints", "bools"):
        if attribute.get(kind) is not None:
            return list(attribute[kind])
    if attribute.get("versions") is not None:
        return [parse_semver(text) for text in attribute["versions"]]
    raise Fault("expected an attribute with a value")


def _qualified(name: str, driver: str) -> tuple[str, str]:
    domain, slash, key = name.partition("/")
    return (domain, key) if slash else (driver, name)
