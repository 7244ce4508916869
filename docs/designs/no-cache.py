"""Every lookup goes to the Metadata Store, of which there are a thousand replicas."""

from fleet.design import Cache, Design, Fault, FaultKind, Metadata, Routers, Storage, Traffic

RATE_PER_S = 1e6
REPLICAS = 1_000

DESIGN = Design(
    name="no-cache",
    title="A thousand Metadata Store replicas on the path of every request",
    duration_s=300,
    traffic=Traffic(rate_per_s=RATE_PER_S),
    routers=Routers(count=200, cache=Cache.NONE),
    # A fifth more than there is to do.
    metadata=Metadata(replicas=REPLICAS, capacity_per_s=1.2 * RATE_PER_S / REPLICAS),
    storage=Storage(nodes=200),
    faults=[Fault(FaultKind.METADATA_DOWN, at_s=60, for_s=30)],
)
