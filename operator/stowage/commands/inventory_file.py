"""The inventory of a cluster from a file, as `kubectl get nodes,pods,resourcequotas -A -o yaml` writes it.

Node pools that an autoscaler could grow are in no such list; a person declares them below it, under `pools:`.
"""

from __future__ import annotations

from stowage.commands.bad_input import bad_input
from stowage.commands.yaml_documents import POOLS, read_objects
from stowage.hardware.inventory import Inventory, build_inventory, pod_usage, quota_room, release
from stowage.hardware.node import node_facts
from stowage.hardware.pool_file import PoolError, read_pools
from stowage.hardware.resources import QuantityError


def read_inventory(path: str, namespace: str, name: str) -> Inventory:
    """Read nodes, and pods and quotas where the file has them, as the LLMDeployment `namespace/name` sees them.

    Its own pods count as free, since a new plan may replace them. Other kinds in the file are passed over.
    """
    objects = read_objects(path)
    try:
        nodes = [node_facts(each) for each in objects if each["kind"] == "Node"]
        pods = [pod_usage(each) for each in objects if each["kind"] == "Pod"]
        quotas = [quota_room(each) for each in objects if each["kind"] == "ResourceQuota"]
        declared = [each[POOLS] for each in objects if each["kind"] == POOLS]
        pools = read_pools(declared[0]) if declared else ()
    except (QuantityError, PoolError) as error:
        bad_input(f"{path}: {error}")
    except (AttributeError, TypeError):
        bad_input(f"{path} holds a Node, Pod or ResourceQuota that is not in the form of the Kubernetes API.")
    if len(declared) > 1:
        bad_input(f"{path} has pools: {len(declared)} times; write one list of all pools.")
    if not nodes and not pools:
        bad_input(f"{path} holds no Node; write it with kubectl get nodes,pods -A -o yaml.")
    own = [pod for pod in pods if pod.owner == f"{namespace}/{name}"]
    others = [pod for pod in pods if pod not in own or pod.node_name is not None]
    mine = [quota for quota in quotas if quota.namespace == namespace]
    return release(build_inventory(nodes, others, mine, pools), own)
