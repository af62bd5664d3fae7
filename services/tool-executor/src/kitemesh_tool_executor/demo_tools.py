"""Two Python tools to try: one that only looks, one that pretends to have an effect. Neither touches anything."""

import hashlib
from typing import Final

_SKIES: Final = ("clear", "cloudy", "rain", "fog", "snow", "wind")


def weather(city: str) -> dict[str, object]:
    """Make up the weather of a city: the same city always has the same."""
    chosen = hashlib.sha256(city.strip().lower().encode()).digest()
    return {
        "city": city,
        "sky": _SKIES[chosen[0] % len(_SKIES)],
        "temperature_c": chosen[1] % 35 - 5,
        "note": "made up: this tool asks nobody",
    }


def delete_record(id: str) -> dict[str, object]:  # noqa: A002  it is the argument's name for the model
    """Pretend to delete a record."""
    return {"deleted": id, "note": "pretended: this tool changes nothing"}
