"""Ray itself: started for this machine alone, joined where a cluster runs, and watched."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from swg_fast.common import interrupts
from swg_fast.common.errors import UsageError
from swg_fast.common.hardware import cores
from swg_fast.common.optional_packages import need

OBJECTS = 80 * 2**20  # bytes of Ray's object store on this machine: only results pass through it
STARTS = 4  # tries to start Ray here
REACHED = 10.0  # seconds in which a cluster must answer
HERE = "127.0.0.1"
NEEDED = ("raylet", "gcs_server")  # Ray's processes without which nothing goes on
GONE = ("Ray's own processes ended (killed, or out of memory); the same command goes on with what is "
        "missing")


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """Ray: that which this process runs already, and keeps; else one of its own on ``cpus`` of this machine's
    cores, whatever other clusters there are; or the cluster at ``address``.

    Raises `UsageError` where Ray is not installed or nothing answers at ``address``.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = need("ray", "a sweep")
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise UsageError(f"this process is connected to Ray at {there}, not at {address}; leave the "
                             "address out, or call ray.shutdown() first")
        yield ray
        return
    with _quiet(ray):
        try:
            _start(ray, cpus) if address is None else _join(ray, address)
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, cpus: int | None) -> None:
    for left in reversed(range(STARTS)):
        try:
            with _this_machine_alone(ray):
                _init(ray, address="local", num_cpus=cpus or cores(), object_store_memory=OBJECTS,
                      include_dashboard=False, _node_ip_address=HERE)
            return
        except Exception as error:  # Ray has no common class for its errors
            ray.shutdown()
            if not left:  # on a busy machine the start may take more than Ray's 30 seconds
                raise UsageError(f"Ray did not start on this machine ({_line(error)}); try again when it is "
                                 "less busy") from error


def _join(ray: Any, address: str) -> None:
    try:
        place = urlsplit(address if "://" in address else f"//{address}")
        if place.hostname is not None and place.port is not None:  # Ray itself waits for minutes
            socket.create_connection((place.hostname, place.port), REACHED).close()
        _init(ray, address=address)
    except Exception as error:
        raise UsageError(f"Ray cannot be reached at {address} ({_line(error)}); start it with "
                         "'ray start --head'") from error


def _init(ray: Any, **settings: Any) -> None:
    # As a client's job: else Ray has workers import from the current folder before all others.
    job = ray.job_config.JobConfig(_client_job=True)
    with interrupts.handlers_kept():  # Ray's own handler of SIGTERM prints a trace
        ray.init(log_to_driver=False, logging_level="ERROR", job_config=job, **settings)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _this_machine_alone(ray: Any) -> Iterator[None]:
    """Has what Ray starts in the block listen on the loopback address, as it does on macOS and Windows unless
    told otherwise; elsewhere it takes ``127.0.0.1`` for the machine's outer address."""
    constants, name = ray._private.ray_constants, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
    before, variable = constants.ENABLE_RAY_CLUSTER, os.environ.get(name)
    constants.ENABLE_RAY_CLUSTER, os.environ[name] = False, "0"
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(name)
        if variable is not None:
            os.environ[name] = variable


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keeps the logs of Ray's own processes, which it prints where one of them dies, from the user."""
    worker = ray._private.worker
    before, worker.print_to_stdstream = worker.print_to_stdstream, lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def check_alive(ray: Any) -> None:
    """`UsageError` where Ray's processes here, or all of a cluster's machines, are gone: Ray would wait for
    ever."""
    node = ray._private.worker._global_node
    dead = [name for name, _ in node.dead_processes()] if node is not None else []
    if any(name in NEEDED for name in dead) or not any(machine["Alive"] for machine in ray.nodes()):
        raise UsageError(GONE)


def fetch(ray: Any, references: list[Any]) -> list[Any]:
    """The results behind ``references``. `UsageError` where an actor or Ray died, or where an actor raised
    it."""
    waiting = references
    while waiting:
        _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1.0)
        if waiting:
            check_alive(ray)
    try:
        return ray.get(references)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UsageError) else error) from None
    except ray.exceptions.RayError as error:
        raise UsageError(f"a shard's process ended ({_line(error)}); begin again, with fewer candidates at "
                         "once if its memory ran out") from error
