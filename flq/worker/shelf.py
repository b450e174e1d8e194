"""Where a worker keeps its vectors while it waits for others."""

from flq.algorithm import uplink
from flq.algorithm.uplink import Proposal, UplinkState


class Shelf(object):
    """In its own memory, as they are, both futures of a proposal included: nothing is computed
    twice. A process with very many workers has another one (flq/simulation/shelves.py).
    """

    def keep(self, held: UplinkState) -> UplinkState:
        """What a worker holds, with its vectors on the shelf."""
        return held

    def put(self, proposal: Proposal) -> Proposal:
        """The same of a proposal that waits for its verdict; only `settle` reads its vectors."""
        return proposal

    def take(self, proposal: Proposal) -> Proposal:
        """What `put` gave, with the body as bytes that can be sent."""
        return proposal

    def settle(self, proposal: Proposal, accepted: bool) -> UplinkState:
        """uplink.settle of what `put` gave."""
        return uplink.settle(proposal, accepted)
