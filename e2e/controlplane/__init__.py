"""A real Kubernetes control plane on one machine, without a container engine.

etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl come from one Go binary that is
built once (`binaries`, `build`) and run as separate processes (`control_plane`) inside a network namespace
where the machine allows one (`namespace`). The command line is ``python -m e2e.controlplane up | down | env
| kubectl``. It must never write outside its state and cache directories, and never leave a process behind.
"""
