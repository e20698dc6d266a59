"""Changes to a checkpoint's card."""

from __future__ import annotations

import json

from swg_fast.policy.checkpoint import CARD

REMOVED = object()


def card_with(*path_and_value):
    """Sets an entry of the card, or takes it out."""
    *path, last, value = path_and_value

    def change(folder):
        card = json.loads((folder / CARD).read_text())
        node = card
        for name in path:
            node = node[name]
        if value is REMOVED:
            del node[last]
        else:
            node[last] = value
        (folder / CARD).write_text(json.dumps(card))

    return change
