"""Admission: decides whether a request may be forwarded, by all the rules for its head. Pure."""

from typing import Final, final

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import AccessRules, Decision, HostRule, SiteRule, split_target
from bits_auth_proxy.forward.headers import (
    RequestRules,
    count_max_forwards,
    cross_origin_fields,
    is_preflight,
    preflight_fields,
)
from bits_auth_proxy.http1.lines import METHODS
from bits_auth_proxy.http1.messages import RequestHead

_RULED: Final = frozenset((b"authorization", b"max-forwards", b"origin", b"sec-fetch-site", b"via"))
"""The fields besides Host that have rules. Most requests have none of them."""
_MAX_SHOWN_HOST: Final = 100


@final
class Admission:
    """The rules of one listener. `max_body` is in bytes.

    `hosts_setting` is the name of the setting that lists the hosts, for the detail of a rejection.
    """

    __slots__ = ("_access", "_host_rule", "_hosts_setting", "_request_rules", "_site_rule", "max_body")

    def __init__(
        self,
        *,
        access: AccessRules,
        host_rule: HostRule,
        site_rule: SiteRule,
        request_rules: RequestRules,
        max_body: int | None,
        hosts_setting: str,
    ) -> None:
        self._access: Final = access
        self._host_rule: Final = host_rule
        self._site_rule: Final = site_rule
        self._request_rules: Final = request_rules
        self.max_body: Final = max_body
        self._hosts_setting: Final = hosts_setting

    def decide(self, head: RequestHead) -> Decision:
        """Return the decision on a request. An absolute-form target of `head` becomes origin-form.

        The authority of such a target replaces the Host (RFC 9112 section 3.2.2), and Max-Forwards of an
        OPTIONS request that goes on is reduced by one.
        """
        path = head.path
        if path is not None:
            accepted = self._host_rule.accepts(head.host)
        else:
            try:
                accepted = self._accepts_target(head)
            except ValueError as error:
                return Decision(problems.BAD_TARGET, detail=str(error))
            path = head.target.partition(b"?")[0]
        decision = self._access.decide(head.method, path)
        if not accepted:
            return self._misdirected(head.host)
        host_rule = self._host_rule
        if host_rule.guards_reads and host_rule.is_suspect(head.method, head.host):
            return self._misdirected(head.host)
        if not _RULED.isdisjoint(head.by_name):
            rejection = self._reject_for_field(head)
            if rejection is not None:
                return rejection
            if head.method == b"OPTIONS":
                decision = self._decide_options(head, path, decision)
        if self.max_body is not None and head.length > self.max_body:
            return Decision(problems.BODY_TOO_LARGE)
        return decision

    def _reject_for_field(self, head: RequestHead) -> Decision | None:
        """Return the rejection of a request because of one of the fields that have rules, if any."""
        rules = self._request_rules
        if not self._site_rule.accepts(head):
            return Decision(problems.CROSS_SITE)
        objection = rules.objection(head)
        if objection:
            return Decision(problems.OWN_CREDENTIALS, detail=objection)
        if rules.is_loop(head):
            return Decision(problems.LOOP)
        return None

    def cross_origin_fields(self, head: RequestHead) -> bytes:
        """Return the fields that let a page read a rejection, if its origin may."""
        return cross_origin_fields(head) if self._site_rule.accepts(head) else b""

    def _accepts_target(self, head: RequestHead) -> bool:
        """Return whether the host of a target in any form is allowed. Raises ValueError for other targets."""
        authority, head.target = split_target(head)
        if authority is None:
            return self._host_rule.accepts(head.host)
        head.host = authority
        return self._host_rule.accepts_authority(authority)

    def _decide_options(self, head: RequestHead, path: bytes, decision: Decision) -> Decision:
        """Return the decision on an OPTIONS request, which the proxy may have to answer itself."""
        if is_preflight(head):
            # The page needs no permission for OPTIONS, but for the call that it is about to make.
            method = head.by_name[b"access-control-request-method"]
            if method not in METHODS:
                return Decision(problems.UNKNOWN_METHOD)
            decision = self._access.decide(method, path)
            return decision if decision.rejection else Decision(None, answer=preflight_fields(head))
        if decision.rejection or b"max-forwards" not in head.by_name:
            return decision
        try:
            goes_on = count_max_forwards(head)
        except ValueError as error:
            return Decision(problems.BAD_FIELD, detail=str(error))
        return decision if goes_on else Decision(None, answer=problems.ALLOW)

    def _misdirected(self, host: bytes | None) -> Decision:
        if not host:
            return Decision(problems.BAD_HOST, detail="the Host field is empty")
        shown = host[:_MAX_SHOWN_HOST].decode("ascii", "backslashreplace")
        return Decision(
            problems.MISDIRECTED,
            detail=f"the host {shown} is not one that the proxy serves; {self._hosts_setting} can add it",
        )
