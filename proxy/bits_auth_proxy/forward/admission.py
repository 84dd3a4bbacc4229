"""Admission: decides whether a request may be forwarded, by all the rules for its head. Pure."""

from typing import Final, final

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import AccessRules, Decision, HostRule, SiteRule, split_target
from bits_auth_proxy.forward.headers import RequestRules
from bits_auth_proxy.http1.messages import RequestHead

_RULED: Final = frozenset((b"authorization", b"origin", b"sec-fetch-site", b"via"))
"""The fields besides Host that have rules. Most requests have none of them."""
_UNSET_HOSTS: Final = (
    "the client could be a web page of that host; to serve it, name it in BITS_ALLOWED_HOSTS"
)


@final
class Admission:
    """The rules of one listener. `max_body` is in bytes."""

    __slots__ = ("_access", "_host_rule", "_request_rules", "_site_rule", "max_body")

    def __init__(
        self,
        *,
        access: AccessRules,
        host_rule: HostRule,
        site_rule: SiteRule,
        request_rules: RequestRules,
        max_body: int | None,
    ) -> None:
        self._access: Final = access
        self._host_rule: Final = host_rule
        self._site_rule: Final = site_rule
        self._request_rules: Final = request_rules
        self.max_body: Final = max_body

    def decide(self, head: RequestHead) -> Decision:
        """Return the decision on a request. An absolute-form target of `head` becomes origin-form."""
        authority, path = None, head.path
        if path is None:
            try:
                authority, head.target = split_target(head)
            except ValueError as error:
                return Decision(problems.BAD_TARGET, detail=str(error))
            path = head.target.partition(b"?")[0]
        decision = self._access.decide(head.method, path)
        host_rule = self._host_rule
        if not host_rule.accepts(head.host):
            return Decision(problems.MISDIRECTED)
        if authority is not None and not host_rule.accepts_authority(authority):
            return Decision(problems.MISDIRECTED)
        if host_rule.guards_reads and authority is None and host_rule.is_suspect(head.method, head.host):
            return Decision(problems.MISDIRECTED, detail=_UNSET_HOSTS)
        if not _RULED.isdisjoint(head.by_name):
            rejection = self._reject_for_field(head)
            if rejection is not None:
                return rejection
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
