"""Help text that the options ``--policy`` of all commands share."""

from shared.policies import POLICY_NAMES

POLICY_HELP = (
    f"{', '.join(POLICY_NAMES)}, a policy of an installed package, or MODULE:CLASS for one of "
    "your own."
)
