"""A routing policy: the text's length chooses the first tier, the answer's margin the next one."""

from shared.policies import Outcome, RoutingDecision, StatelessPolicy, TextFeatures, Tier

NEXT = {Tier.MOBILE: Tier.EDGE, Tier.EDGE: Tier.CLOUD}


class LengthAndMargin(StatelessPolicy):
    """Start short texts on the mobile and long ones at the edge; escalate uncertain answers."""

    name = "length-and-margin"

    def __init__(self, short: int = 16, margin: float = 0.6) -> None:
        self.short = short
        self.margin = margin

    def route(self, features: TextFeatures) -> RoutingDecision:
        """Choose the first tier by the number of tokens."""
        tier = Tier.MOBILE if features.tokens <= self.short else Tier.EDGE
        return RoutingDecision(tier, self.name)

    def escalate(
        self,
        features: TextFeatures,
        decision: RoutingDecision,
        outcome: Outcome,
        meets_threshold: bool,
    ) -> Tier | None:
        """Return the next tier if the two most probable labels are close; None keeps the answer."""
        return NEXT[outcome.tier] if outcome.margin < self.margin else None
