"""How the operator process is set up: flags first, then environment, then defaults.

Every setting has a flag `--like-this` and a variable `STOWAGE_LIKE_THIS`. Nothing secret is ever a setting: credentials
come from the kubeconfig or the service account.
"""

from __future__ import annotations

import argparse
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from stowage import __version__
from stowage.feed.declared_pools import read_declared_pools
from stowage.feed.price_file import PriceFileError, read_price_file
from stowage.hardware.pool_file import PoolError
from stowage.hardware.pools import Pool
from stowage.planning.prices import Prices, default_prices
from stowage.planning.result import DEFAULT_ENGINE_VERSION
from stowage.world import EngineOptions


class BadSetting(Exception):
    """A setting that cannot be used; the message names it, its value and what to write instead."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Times are in seconds; a port of -1 serves nothing, 0 takes a free one."""

    kubeconfig: str = _option(
        "", "kubeconfig file; default: $KUBECONFIG, the service account, ~/.kube/config"
    )
    namespaces: tuple[str, ...] = _option((), "namespaces to serve, separated by commas; default: all")
    agent_image: str = _option(
        f"ghcr.io/stowage-dev/stowage:{__version__}", "image that brings the agent into vLLM pods"
    )
    default_engine_version: str = _option(DEFAULT_ENGINE_VERSION, "vLLM version of specs that name none")
    gpu_image: str = _option("vllm/vllm-openai:v{version}", "default vLLM image for GPUs")
    cpu_image: str = _option("vllm/vllm-openai-cpu:v{version}", "default vLLM image for CPUs")
    hub_endpoint: str = _option("", "HF_ENDPOINT of the pods; default: the operator's own")
    pools: str = _option("", "file that declares node pools which can grow, read at the start; default: none")
    prices: str = _option(
        "", "file with prices per GPU-hour, read at the start; default: built-in list prices"
    )
    host: str = _option("", "address of the probe and metrics ports; default: all")
    health_port: int = _option(8081, "port of /healthz and /readyz")
    metrics_port: int = _option(8080, "port of /metrics")
    leader_election: bool = _option(True, "take the Lease before working")
    lease_name: str = _option("stowage", "name of the Lease")
    lease_namespace: str = _option("", "namespace of the Lease; default: the operator's own")
    lease_duration: float = _option(15.0, "how long a Lease is good for")
    renew_deadline: float = _option(10.0, "age of the last renewal at which a leader ends")
    retry_period: float = _option(2.0, "time between two renewals")
    workers: int = _option(4, "number of reconciliations at a time")
    resync_interval: float = _option(600.0, "time between two full LISTs")
    watch_patience: float = _option(300.0, "how long a watch may lack what a LIST shows")
    fan_out_interval: float = _option(5.0, "least time between two fan-outs of inventory changes")
    crd_interval: float = _option(5.0, "time between two looks for the CustomResourceDefinition")
    scrape_interval: float = _option(15.0, "time between two reports of a serving pod")
    start_scrape_interval: float = _option(2.0, "time between two reports of a starting pod")
    status_interval: float = _option(60.0, "least time between two writes of utilisation")
    stop_grace: float = _option(5.0, "how long a graceful stop may take")
    log_format: str = _option("text", "text or json")
    log_level: str = _option("INFO", "DEBUG, INFO, WARNING or ERROR")

    def engine_options(self) -> EngineOptions:
        """The settings that decisions depend on."""
        return EngineOptions(
            agent_image=self.agent_image,
            default_engine_version=self.default_engine_version,
            images={"GPU": self.gpu_image, "CPU": self.cpu_image},
            hub_endpoint=self.hub_endpoint or None,
            status_interval=timedelta(seconds=self.status_interval),
            prices=self.price_table(),
        )

    def price_table(self) -> Prices:
        """The prices that plans are compared by; raises BadSetting."""
        try:
            return read_price_file(self.prices) if self.prices else default_prices()
        except PriceFileError as error:
            raise BadSetting(f"Setting prices: {error}") from error

    def node_pools(self) -> tuple[Pool, ...]:
        """The node pools that are declared; raises BadSetting."""
        try:
            return read_declared_pools(self.pools) if self.pools else ()
        except PoolError as error:
            raise BadSetting(f"Setting pools: {error}") from error


def identity() -> str:
    """A name for this process in the Lease and in events: the pod's or host's name and something unique."""
    return f"{os.environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}"


def own_namespace() -> str:
    """The namespace of the operator's own pod, or `default` outside a cluster."""
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return path.read_text().strip() if path.is_file() else "default"


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read flags over variables over defaults; raises BadSetting. `--help` prints and exits as usual."""
    parser = argparse.ArgumentParser(prog="python -m stowage.app", description="Run the Stowage operator.")
    for option in fields(Settings):
        flag = f"--{option.name.replace('_', '-')}"
        parser.add_argument(flag, default=None, help=f"{option.metadata['help']} [{_shown(option)}]")
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {}
    for option in fields(Settings):
        variable = f"STOWAGE_{option.name.upper()}"
        text = given[option.name] if given[option.name] is not None else environment.get(variable)
        if text is not None:
            values[option.name] = _convert(option, text)
    values.setdefault("hub_endpoint", environment.get("HF_ENDPOINT", ""))
    values.setdefault("lease_namespace", own_namespace())
    return _checked(Settings(**values))


def _shown(option: Field[Any]) -> str:
    default = option.default if option.default is not MISSING else ""
    return str(default).replace("%", "%%") if default != () else ""


def _convert(option: Field[Any], text: str) -> Any:
    default: Any = option.default
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return type(default)(text)
    except (KeyError, ValueError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number of seconds"}[type(default)]
        raise BadSetting(f"Setting {option.name} is '{text}'; write {kind}.") from error


def _checked(settings: Settings) -> Settings:
    if settings.log_format not in ("text", "json"):
        raise BadSetting(f"Setting log_format is '{settings.log_format}'; write text or json.")
    if "@" in settings.hub_endpoint.rpartition("://")[2].partition("/")[0]:
        # It goes into objects that many may read, so it is not repeated here either.
        raise BadSetting(
            "Setting hub_endpoint holds credentials, which pods and logs would show; write the address without "
            "them, and put a token into the Secret that spec.model.tokenSecretRef names."
        )
    if settings.workers < 1:
        raise BadSetting(f"Setting workers is {settings.workers}; write at least 1.")
    if settings.retry_period < 1:
        raise BadSetting(f"Setting retry_period is {settings.retry_period:g}; write at least 1.")
    if settings.lease_duration <= settings.renew_deadline:
        raise BadSetting(
            f"Setting lease_duration is {settings.lease_duration:g}; it must be longer than "
            f"renew_deadline, which is {settings.renew_deadline:g}."
        )
    if settings.renew_deadline <= 1.2 * settings.retry_period:
        raise BadSetting(
            f"Setting renew_deadline is {settings.renew_deadline:g}; it must be longer than 1.2 times "
            f"retry_period, which is {settings.retry_period:g}."
        )
    return settings
