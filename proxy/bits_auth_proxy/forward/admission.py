"""Admission: whether a request may be forwarded, by all rules that look at its head. Pure."""

from typing import Final, final

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import AccessRules, Decision, HostRule, SiteRule, split_target
from bits_auth_proxy.forward.headers import RequestRules
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.http1.messages import RequestHead

_RULED: Final = frozenset((b"authorization", b"origin", b"sec-fetch-site", b"via"))
"""Fields that a rule looks at beyond Host. Most requests bring none of them."""


@final
class Admission:
    """The rules of one listener. Size in bytes."""

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
        problem = self._objection(head, authority)
        return decision if problem is None else Decision(problem)

    def _objection(self, head: RequestHead, authority: bytes | None) -> Problem | None:
        """Return what speaks against a request apart from its method and path."""
        host_rule = self._host_rule
        if not host_rule.accepts(head.host):
            return problems.MISDIRECTED
        if authority is not None and not host_rule.accepts_authority(authority):
            return problems.MISDIRECTED
        if not _RULED.isdisjoint(head.by_name):
            rules = self._request_rules
            if not self._site_rule.accepts(head):
                return problems.CROSS_SITE
            if rules.rejects(head):
                return problems.OWN_CREDENTIALS
            if rules.is_loop(head):
                return problems.LOOP
        if self.max_body is not None and head.length > self.max_body:
            return problems.BODY_TOO_LARGE
        return None
