"""`ray start` for one more node on this machine, on the loopback alone; local.sh calls it as it would call `ray`.

Ray binds every port to 127.0.0.1 where RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is 0, on Linux too, and then refuses a second
node, because on other machines nobody could reach it. Here both are on this one.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

from ray._private import ray_constants
from ray.scripts import scripts

scripts.ray_constants = SimpleNamespace(**{**vars(ray_constants), "ENABLE_RAY_CLUSTER": True})

if __name__ == "__main__":
    sys.exit(scripts.cli(prog_name="ray"))
