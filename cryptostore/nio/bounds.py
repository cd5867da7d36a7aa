"""How much is kept of what strangers choose the size of.

    what                            at most          what is beyond it
    characters of a display name    256              is cut off
    devices of a user               2,000            gets no keys until the owner decides; deleted ones make room
    keys of a device                16               the device gets no keys
    characters of a key             255              the device gets no keys
    Olm sessions with a device      10               the least recently used one is forgotten
    forwarders of a room key        100              the room key is left out
    characters of a withheld code   256              are cut off, as of its reason
    withheld room keys              2,000            the oldest is forgotten
    senders of one of them          8                what others say of it is left out
    characters of a sync token      65,536           the place stays where it was

Without them a stranger could make one batch so large that no database takes it in time.
"""

from __future__ import annotations

from typing import Final

#: Synapse takes 100 characters; nothing depends on the rest.
DISPLAY_NAME: Final = 256
#: No person has so many sessions and devices.
DEVICES: Final = 2_000
#: Of each algorithm a device has one; nio knows two.
DEVICE_KEYS: Final = 16
KEY: Final = 255
#: Each lost answer leaves one more; messages that are under way are in the newest few.
OLM_SESSIONS: Final = 10
FORWARDERS: Final = 100
WITHHELD_TEXT: Final = 256
WITHHELD_KEYS: Final = 2_000
#: Only the owner of the key has something to say of it; who that is may not be known yet.
WITHHELD_SENDERS: Final = 8
TOKEN: Final = 65_536
