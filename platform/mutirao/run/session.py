"""Ray for one run: a bounded local Ray on loopback, or the cluster that a submitted job runs in.

Telemetry is off, the dashboard is off, authentication is chosen on purpose (Ray 2.60 otherwise
turns it on for local clusters), and every worker sees one thread per core.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mutirao.core import recipe as recipes
from mutirao.core.errors import EnvironmentProblem

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # report() waits for this poll; 2 s by default
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",  # a worker that no longer answers; 600 s
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",  # a frozen rank takes no part in it; 30 s
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


# A local Ray needs no authentication, since it listens on loopback alone: without the second
# setting, whose name speaks of other systems, Ray on Linux takes the machine's address and its
# servers listen on all interfaces (seen with Ray 2.60).
LOCAL = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def prepare_environment(address: str = "", hub: bool = False) -> None:
    """Set what Ray reads at import; values that the user has set are kept.

    hub: a source is on the Hugging Face hub, so its client may use the network.
    """
    if hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "0")
    local = {} if address or "RAY_ADDRESS" in os.environ else LOCAL
    for name, value in {**SETTINGS, **local}.items():
        os.environ.setdefault(name, value)


def prepare_for(recipe: recipes.Recipe) -> None:
    """`prepare_environment` as the recipe has it; before anything imports Ray."""
    hub = any("hf://" in str(source.path) for source in recipe.sources)
    prepare_environment(recipe.ray.address, hub)


@contextmanager
def ray_session(settings: recipes.Ray, run_id: str = "") -> Iterator[None]:
    """Start Ray (or join the cluster) and leave it as it was found.

    Raises EnvironmentProblem if no cluster answers at the address.
    """
    prepare_environment(settings.address)
    import ray

    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS", "")
    common: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        "runtime_env": {"env_vars": _worker_environment(run_id)},
    }
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(
                address="local",  # else Ray joins any cluster that runs on this machine
                num_cpus=settings.cpus or len(os.sched_getaffinity(0)),
                object_store_memory=settings.object_store_mb * 1_000_000,
                include_dashboard=False,
                **common,
            )
    except Exception as error:  # a node that starts too slowly raises the plain kind
        place = address or "this machine"
        hint = "Run `mutirao doctor`; the full error is in the run's log."
        raise EnvironmentProblem(f"Ray does not start: {error}", place, hint, "no-ray") from error
    _configure_data()
    try:
        yield
    finally:
        ray.shutdown()


def _worker_environment(run_id: str) -> dict[str, str]:
    """What workers get. A submitted job has brought the settings in its own runtime_env, and Ray
    refuses the same name twice."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {"MUTIRAO_RUN_ID": run_id}
    names = [*SETTINGS, "DS_ACCELERATOR", "TORCH_EXTENSIONS_DIR", "MUTIRAO_HOME"]
    passed_on = {name: os.environ[name] for name in names if name in os.environ}
    return {**passed_on, "MUTIRAO_RUN_ID": run_id}


def _configure_data() -> None:
    """Ray Data prints nothing of its own: progress is ours."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
