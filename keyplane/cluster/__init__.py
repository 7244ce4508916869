"""Clusters of real processes on this machine: start, look at, disturb and stop them."""

from keyplane.cluster.cluster import Cluster, DownResult, MemberStatus, UpResult, default_home
from keyplane.cluster.config import ClusterConfig, Timeouts
from keyplane.cluster.faults import ActiveFault, Faults
from keyplane.cluster.state import Kind, Member, Paths

__all__ = [
    "ActiveFault",
    "Cluster",
    "ClusterConfig",
    "DownResult",
    "Faults",
    "Kind",
    "Member",
    "MemberStatus",
    "Paths",
    "Timeouts",
    "UpResult",
    "default_home",
]
