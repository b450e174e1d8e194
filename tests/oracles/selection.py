"""The selection of algorithm.md 5, one bid after the other."""

from fractions import Fraction


def select(bids, best_n=0, budget=0):
    """bids: {worker: (gain, bits, overdue)}, gain with the weight in it. Returns the selected
    workers, ordered.

    Overdue first; among equals by gain (best n) or by gain per bit (a budget is set), then by
    worker id. A bid that does not fit is passed over and the next one tried. A budget that fits
    nobody grants the single best.
    """
    remaining = sorted(bids)
    order = []
    while remaining:
        best = remaining[0]
        for worker in remaining[1:]:
            if _better(bids[worker], bids[best], budget):
                best = worker
        order.append(best)
        remaining.remove(best)
    selected, spent = [], 0
    for worker in order:
        if best_n and len(selected) == best_n:
            break
        if not budget or spent + bids[worker][1] <= budget:
            selected.append(worker)
            spent += bids[worker][1]
    if not selected and order:
        selected = order[:1]
    return sorted(selected)


def _better(bid, other, budget):
    gain, bits, overdue = bid
    other_gain, other_bits, other_overdue = other
    if overdue != other_overdue:
        return overdue
    if budget:
        return Fraction(gain) / bits > Fraction(other_gain) / other_bits
    return gain > other_gain
