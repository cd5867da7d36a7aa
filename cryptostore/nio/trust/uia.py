"""User-interactive authentication: what a homeserver wants before it replaces an identity (Matrix specification).

A password is given in one request, without a session. Whatever else is wanted needs a person, who is told what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .requests import Answer

_UNAUTHORIZED: Final = 401
_PASSWORD: Final = "m.login.password"  # noqa: S105  # no password
_WRONG: Final = "M_FORBIDDEN"
#: Stages in which a person approves at a URL; the first is the present name, the other one Synapse's before.
_APPROVALS: Final = ("m.oauth", "org.matrix.cross_signing_reset")


def is_wanted(answer: Answer) -> bool:
    """Whether the homeserver wants more than the access token."""
    return answer.status == _UNAUTHORIZED and isinstance(answer.content.get("flows"), list)


def password_suffices(answer: Answer) -> bool:
    """Whether a password is all that it wants."""
    return [_PASSWORD] in _flows(answer)


def with_password(content: Mapping[str, Any], user_id: str, password: str, answer: Answer) -> dict[str, Any]:
    """The body of the next try."""
    session = answer.content.get("session")
    auth = {
        "type": _PASSWORD,
        "identifier": {"type": "m.id.user", "user": user_id},
        "password": password,
        **({"session": session} if isinstance(session, str) else {}),
    }
    return {**content, "auth": auth}


def explanation(answer: Answer) -> str:
    """What a person has to do, in words."""
    if answer.errcode == _WRONG:
        return f"the homeserver says that the password is wrong: {answer.problem}"
    flows = _flows(answer)
    if urls := list(_urls(answer, {stage for flow in flows for stage in flow})):
        return f"the homeserver wants a person to approve it in a browser, at {' or '.join(urls)}; then call this again"
    if [_PASSWORD] in flows:
        return "the homeserver wants the account's password; give it as password=..."
    if not flows:
        return (
            "the homeserver wants more than the access token, and offers no way to give it, as where passwords are "
            "disabled; its administrator can replace the identity"
        )
    stages = " or ".join(" and ".join(flow) for flow in flows)
    return (
        f"the homeserver wants {stages}, which this client cannot do; a person does it in another client: log in as "
        "the account, reset its identity there, and give this client the recovery key"
    )


def _flows(answer: Answer) -> list[list[str]]:
    """The stages that are left to do, by flow."""
    flows, completed = answer.content.get("flows"), answer.content.get("completed")
    done = completed if isinstance(completed, list) else []
    stages = [flow.get("stages") for flow in flows if isinstance(flow, dict)] if isinstance(flows, list) else []
    return [[str(stage) for stage in flow if stage not in done] for flow in stages if isinstance(flow, list)]


def _urls(answer: Answer, stages: Iterable[str]) -> Iterable[str]:
    params = answer.content.get("params")
    for stage in _APPROVALS:
        said = params.get(stage) if isinstance(params, dict) else None
        if stage in stages and isinstance(said, dict) and isinstance(said.get("url"), str):
            yield said["url"]
