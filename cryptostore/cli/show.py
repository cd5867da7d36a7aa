"""`cryptostore show`: one account, as far as it may be shown."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cryptostore.plugins.loading import shown_url
from cryptostore.records import Device, DeviceTrust
from cryptostore.store.ownership import Mode, Ownership

from .accounts import owner_document, owner_lines
from .databases import DatabaseUrl, DeviceId, UserId, names_of, open_for, the_account
from .exits import ExitCode
from .identity import identity_document, identity_lines, unreadable_lines
from .output import AsJson, print_json, print_line, print_table, shown_time
from .pickle_keys import NO_OPTIONS, PickleKeyOptions, current_pickle_key, takes_pickle_keys
from .rows import unreadable_document
from .stored_account import StoredAccount, StoredRoom, StoredUser


@takes_pickle_keys
def show(
    url: DatabaseUrl,
    user_id: UserId = None,
    device_id: DeviceId = None,
    pickle_key_options: PickleKeyOptions = NO_OPTIONS,
    devices: Annotated[
        bool, typer.Option("--devices", help="List each device, not each user's number of them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one account: its owner, identity, rooms with their sessions, devices, and the names of its secrets.

    No secret is shown, nothing is taken over, and nothing is changed. What cannot be read is left out, and named in the
    log; `cryptostore verify` lists all of it. The exit code is 1 where the sync token or something that belongs to the
    identity cannot be read.
    """
    pickle_key = current_pickle_key(pickle_key_options)
    with open_for("show", url) as backend:
        account = the_account(backend, url, user_id, device_id, "one account is shown at a time")
        with backend.open_store(account, Mode.READ, pickle_key=pickle_key) as store:
            owner, stored = store.ownership, StoredAccount.read(store, keep_devices=devices)
    if as_json:
        print_json({"database": shown_url(url), **names_of(account), **_document(owner, stored)})
    else:
        print_line(f"{account} in {shown_url(url)}", style="bold")
        _report(owner, stored, each_device=devices)
    if stored.unreadable:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _report(owner: Ownership, stored: StoredAccount, *, each_device: bool) -> None:
    lines = [
        *owner_lines(owner),
        ("sync token", "here" if stored.has_sync_token else "not here"),
        *identity_lines(stored.identity),
        *(("secret", f"{secret.name}, of {shown_time(secret.made_at)}") for secret in stored.secrets),
        *unreadable_lines(stored.unreadable),
        *((kind, f"{number:,}") for kind, number in stored.counted.items() if number),
    ]
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        print_line(f"  {name:<{width}} {text}")
    if stored.rooms:
        rows = [_room_row(*each) for each in stored.rooms.items()]
        print_table("Rooms", ["room", "encrypted", "sessions", "sent", "missing"], rows)
    if each_device and stored.devices:
        columns = ["user", "device", "trust", "deleted", "Ed25519 key", "name"]
        print_table("Devices", columns, [_device_row(each) for each in stored.devices])
    elif stored.users:
        rows = [_user_row(*each) for each in stored.users.items()]
        print_table("Devices", ["user", "devices", "deleted", *_DECIDED], rows)


#: What people are told of decisions.
_DECIDED = [trust.value for trust in DeviceTrust if trust is not DeviceTrust.UNSET]


def _room_row(room_id: str, room: StoredRoom) -> tuple[str, ...]:
    missing = "a gap" if room.has_gap else ""
    missed = f"{room.missed:,} told of" if room.missed else ""
    return (
        room_id,
        "yes" if room.is_encrypted else "not known",
        f"{room.sessions:,}",
        "" if room.sent is None else f"{room.sent:,}",
        ", ".join(filter(None, [missing, missed])),
    )


def _user_row(user_id: str, user: StoredUser) -> tuple[str, ...]:
    decided = (f"{user.trust[DeviceTrust(each)]:,}" for each in _DECIDED)
    return user_id, f"{user.devices:,}", f"{user.deleted:,}", *decided


def _device_row(device: Device) -> tuple[str, ...]:
    deleted = "yes" if device.deleted else ""
    key = str(device.keys.get("ed25519", ""))
    return device.user_id, device.device_id, device.trust.value, deleted, key, device.display_name


def _document(owner: Ownership, stored: StoredAccount) -> dict[str, Any]:
    return {
        **owner_document(owner),
        "sync_token": stored.has_sync_token,
        **identity_document(stored.identity),
        "secrets": [{"name": each.name, "made_at": each.made_at.isoformat()} for each in stored.secrets],
        **unreadable_document(stored.unreadable),
        "counted": stored.counted,
        "rooms": {
            room_id: {
                "encrypted": room.is_encrypted,
                "sessions": room.sessions,
                "sent": room.sent,
                "gap": room.has_gap,
                "missed": room.missed,
            }
            for room_id, room in stored.rooms.items()
        },
        "users": {
            user_id: {"devices": user.devices, "deleted": user.deleted, "trust": dict(user.trust)}
            for user_id, user in stored.users.items()
        },
        "devices": [
            {
                "user_id": each.user_id,
                "device_id": each.device_id,
                "keys": dict(each.keys),
                "display_name": each.display_name,
                "trust": each.trust,
                "deleted": each.deleted,
            }
            for each in stored.devices
        ],
    }
