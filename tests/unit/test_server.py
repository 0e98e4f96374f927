"""Options and process limits of `shared.serving.server`."""

from __future__ import annotations

import resource

from shared.serving.server import raise_open_files_limit


def test_open_files_limit_is_raised_to_what_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
    try:
        raise_open_files_limit()
        current, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert current > 2_000 or current == maximum
        assert maximum == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
