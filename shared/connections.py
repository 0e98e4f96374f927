"""Idle and stop times of connections, which clients and servers must agree on.

If a client and its server close idle connections after the same time, a request may be on its way
while the server closes the connection, and is lost. So every server waits longer than every client,
by more than a round trip on the slowest link::

    CLIENT_IDLE_S  <  CALLER_IDLE_S  <  CALLER_IDLE_S + LINK_MARGIN_S  =  SERVER_IDLE_S
"""

from __future__ import annotations

from shared.field_types import MAX_DEADLINE_MS

CLIENT_IDLE_S = 5.0
"""Idle time after which each HTTP client of this project closes a connection."""
CALLER_IDLE_S = 60
"""Longest idle time of other clients and proxies in front of a service: the default of nginx and of
AWS's load balancers. A proxy with a longer one needs a setting below `SERVER_IDLE_S`."""
LINK_MARGIN_S = 30
"""Longest round trip of a link, with jitter (`shared.link_profiles.parse_link`). The server's idle
time starts when it sends an answer, and a client's when the answer arrives."""
SERVER_IDLE_S = CALLER_IDLE_S + LINK_MARGIN_S
"""Idle time after which a server closes a connection."""
GRACEFUL_STOP_S = round(MAX_DEADLINE_MS / 1e3) + 5
"""Time that a server which is told to stop gives to the requests in flight: the longest deadline,
and the time to send the answer."""
CLOSE_S = 15
"""Most time from the last answer to the end of a service, which delivers its ledger entries. What
starts services must not kill them before ``GRACEFUL_STOP_S + CLOSE_S``."""
