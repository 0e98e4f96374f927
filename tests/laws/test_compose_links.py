"""deploy/compose.links.yml over docker-compose.yml: links on all hops, control on loopback.

Needs no engine: the test merges the two files as compose does, with the defaults of the variables.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from shared.link_control import LinkControl
from testbed.links.hops import HOPS, PREFIX
from testbed.links.schedule import read_schedule
from testbed.links.settings import RelaySettings
from testbed.processes.processes import Role, Testbed
from tests.support.paths import REPOSITORY, free_ports


def services(path: str) -> dict[str, Any]:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)
    assert "${" not in text
    return dict(yaml.safe_load(text)["services"])


BASE, LINKS = services("docker-compose.yml"), services("deploy/compose.links.yml")
RELAYS = sorted(name for name in LINKS if name.startswith(PREFIX))


def settings(name: str) -> RelaySettings:
    given = LINKS[name]["environment"].items()
    return RelaySettings(**{key.removeprefix("DIMEE_").lower(): value for key, value in given})


def test_every_hop_of_the_mobile_has_its_own_link() -> None:
    hops = {PREFIX + hop for hop, (caller, _) in HOPS.items() if caller == "mobile"}
    assert set(RELAYS) == hops
    assert set(LINKS) == hops | {"mobile"}
    for hop in hops:
        target = HOPS[hop.removeprefix(PREFIX)][1]
        variable = f"DIMEE_{target.upper()}_URL"
        direct = urlsplit(BASE["mobile"]["environment"][variable])
        relayed = urlsplit(LINKS["mobile"]["environment"][variable])
        assert relayed.hostname == hop
        assert settings(hop).link_listen == f"0.0.0.0:{relayed.port}"
        assert settings(hop).link_target == direct.netloc
    assert LINKS["mobile"]["depends_on"] == {hop: {"condition": "service_healthy"} for hop in hops}


@pytest.mark.parametrize("name", RELAYS)
def test_relay_has_the_restrictions_of_a_service_and_no_published_port(name: str) -> None:
    relay, service = LINKS[name], BASE["mobile"]
    assert relay["image"] == service["image"].replace("mobile", "relay")
    assert relay["build"] == service["build"] | {"target": "relay"}
    for option in ("restart", "init", "read_only", "tmpfs", "cap_drop", "security_opt",
                   "stop_grace_period"):  # fmt: skip
        assert relay[option] == service[option], option
    assert "ports" not in relay
    assert settings(name).host == "127.0.0.1"
    assert read_schedule(settings(name).link)


def test_command_of_the_container_starts_a_relay_with_these_settings(tmp_path: Path) -> None:
    relay = LINKS[RELAYS[0]]
    listen, port = free_ports(2)
    given = {key: str(value) for key, value in relay["environment"].items()}
    given |= {"DIMEE_LINK_LISTEN": f"127.0.0.1:{listen}"}
    python, option, module = relay["command"]
    assert (python, option) == ("python", "-m")
    with Testbed([Role("link", module, port, given)], tmp_path, {}) as testbed:
        testbed.start_all()
        report = LinkControl("link", testbed.roles["link"].url).report()
    assert testbed.processes["link"].returncode == 0
    assert report["spec"] == given["DIMEE_LINK"]
