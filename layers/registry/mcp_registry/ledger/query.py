"""The query of a route of the ledger: what is wrong with it, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mcp_registry.errors import Fault, ValidationFailed


def refuse(faults: Sequence[Fault]) -> None:
    """Raise ValidationFailed where there are faults."""
    if faults:
        raise ValidationFailed(faults=faults)


def unknown(query: Mapping[str, str], known: Sequence[str] = ()) -> list[Fault]:
    """The parameters that a route does not have: a misspelt filter would tell everything."""
    return [Fault(name, "There is no such parameter", "unknown") for name in query if name not in known]


def number(query: Mapping[str, str], name: str, least: int, most: int, default: int, faults: list[Fault]) -> int:
    """A number of the query; where it is none from `least` to `most`, a fault more."""
    text = query.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most)) and text == str(int(text))
    if is_number and least <= int(text) <= most:
        return int(text)
    faults.append(Fault(name, f"Must be a number from {least} to {most}", "value"))
    return default


def word(query: Mapping[str, str], name: str, words: Sequence[str], faults: list[Fault]) -> str | None:
    """One of some words, of the query; None where it is empty or absent, and a fault more where it is another."""
    text = query.get(name) or None
    if text is not None and text not in words:
        faults.append(Fault(name, f"Must be one of {', '.join(words)}", "enum"))
    return text


def text(query: Mapping[str, str], name: str, longest: int, faults: list[Fault]) -> str | None:
    """A name of the query; None where it is empty or absent, and a fault more where nothing can have it."""
    found = query.get(name) or None
    if found is not None and not (len(found) <= longest and found.isascii() and found.isprintable()):
        faults.append(Fault(name, f"Must have at most {longest} characters, which are ASCII and can be read", "value"))
    return found
