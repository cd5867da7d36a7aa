"""What the doctor looks at by itself, whatever the backend, by the names of the findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cryptostore.plugins.findings import Finding

#: Of what is installed.
INSTALLATION: Final = {
    "distributions": "the installed distributions of this project have one version",
    "encryption": "OpenSSL offers AES-GCM-SIV",
    "nio": "`nio` is matrix-nio's, and not another distribution's",
    "observers": "every observer plugin can be loaded",
    "plugin": "the URL's backend is installed, and can be loaded",
}
#: Of the settings.
SETTINGS: Final = {
    "env file": "`.env` is understood, and no other user may read the secrets in it",
    "pickle key": "there is one, where it comes from, who else may read its file, and whether it can be guessed",
}
#: Of the database, beside what its backend looks at.
DATABASE: Final = {
    "opening": "the database can be opened",
    "accounts": "there are accounts",
}
#: Of each account.
ACCOUNT: Final = {
    "home": "the account was not moved elsewhere, and is no copy that is not complete",
    "owner": "who owns it; whether it was fenced lately, or while the doctor looked",
    "ring": "the pickle key opens it",
    "restored": "no backup of it was put back without being made safe",
    "records": "rows can be read: the first hundred of each kind, or all with `--all`",
    "login": "a client has logged in with it, and synced",
    "identity": "it has a cross-signing identity, which has signed this device and is the one that was pinned",
    "fallback key": "there is one, and the homeserver has it",
    "backup": "no sessions wait for the server-side key backup",
}


@dataclass(frozen=True)
class Group:
    """The findings about one thing, which has a title."""

    title: str
    findings: list[Finding]
    #: Whether people are shown only what is not as it should be.
    is_in_short: bool = False


def has_to_be_changed(groups: Iterable[Group]) -> bool:
    """Whether somebody has to do something about one of the findings."""
    return any(each.level.has_to_be_changed for group in groups for each in group.findings)
