"""Whether two records of a worker are the same, bit for bit."""


def same_array(first, second):
    return first is second is None or (first.dtype == second.dtype
                                       and first.tobytes() == second.tobytes())


def same_uplink(first, second):
    none = {"memory": None, "activity": None}
    return same_array(first.memory, second.memory) and same_array(
        first.activity, second.activity) and first._replace(**none) == second._replace(**none)


def same(first, second):
    """Whether a worker goes on from both in the same way. (Of the uplink before a proposal only
    what its frame says is used.)
    """
    without = {"params": None, "non_trainable": None, "uplink": None, "proposal": None,
               "activity": None}
    if first._replace(**without) != second._replace(**without) or not all(
            same_array(getattr(first, name), getattr(second, name))
            for name in ("params", "non_trainable", "activity")):
        return False
    if second.proposal is None:
        return first.proposal is None and same_uplink(first.uplink, second.uplink)
    none = {"memory": None, "activity": None}
    ours, theirs = first.proposal, second.proposal
    parts = {"non_trainable": None, "committed": None, "kept": None}
    return (first.uplink._replace(**none) == second.uplink._replace(**none)
            and ours._replace(**parts) == theirs._replace(**parts)
            and same_array(ours.non_trainable, theirs.non_trainable)
            and same_uplink(ours.committed, theirs.committed)
            and same_uplink(ours.kept, theirs.kept))
