"""Where the API server is and who we are to it, from a kubeconfig or from the pod's service account.

One place reads credentials, for our own client and for the event feed alike. Tokens never leave this module other
than inside the objects that carry them to an HTTP header.
"""

from __future__ import annotations

import os
from typing import Any

from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, incluster_config, kube_config


class NoCredentials(Exception):
    """Neither a kubeconfig nor a service account could be used; the message says what was tried."""


async def load_connection(kubeconfig: str | None) -> Any:
    """The client's Configuration: `kubeconfig` if given, then $KUBECONFIG, the service account, ~/.kube/config.

    Raises NoCredentials.
    """
    configuration = Configuration()
    # Our queue retries; a second, hidden layer of retries would only stretch time-outs.
    configuration.retries = None
    explicit = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if not explicit and os.environ.get("KUBERNETES_SERVICE_HOST"):
            incluster_config.load_incluster_config(client_configuration=configuration)
            return configuration
        await kube_config.load_kube_config(
            config_file=explicit, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, OSError) as error:
        tried = explicit or "the service account and ~/.kube/config"
        raise NoCredentials(f"Cannot connect to Kubernetes with {tried}: {error}") from error
    return configuration
