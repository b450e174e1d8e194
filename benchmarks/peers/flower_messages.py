"""Flower's messages between a strategy and nodes in one process, serialised as Flower sends them
and read again on the other side: their bytes, and the processor time of that.
"""

import time

PLAIN = "float32"


def strategy_of(mode, nodes=1, **keywords):
    """Flower's FedAvg for float32, FLQ's around it for its modes; every node plays each round."""
    from flwr.serverapp.strategy import FedAvg

    from flq.integrations.flower import FlqStrategy
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes)
    return strategy if mode == PLAIN else FlqStrategy(strategy, mode=mode, **keywords)


class Messages:
    """A grid of nodes in this process, node number i with partition-id i of a ClientApp.

    up, down: bytes of the answers and of the messages, metadata and metrics included.
    serialising_s: processor time of writing and reading them, [the nodes', the server's].
    """

    def __init__(self, app, nodes, run_config):
        from flwr.app import Context, RecordDict
        from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
        from flwr.supercore.task_identity import TaskIdentity
        self._app, self._nested = app, get_all_nested_objects
        self._inflate = inflate_object_from_contents
        self.up, self.down, self.serialising_s = 0, 0, [0.0, 0.0]
        self._contexts = {
            1000 + number: Context(1, 1000 + number, {
                "num-partitions": nodes, "partition-id": number
            }, RecordDict(), run_config) for number in range(nodes)
        }
        # What Flower sets in the process of a ServerApp.
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

    def get_node_ids(self):
        return list(self._contexts)

    def send_and_receive(self, messages, *, timeout=None):
        return [self._answered(message) for message in messages]

    def _answered(self, message):
        size, message = self._sent(message, writer=1)
        self.down += size
        reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        if reply.has_error():
            raise SystemExit(f"a node failed: {reply.error}")
        size, reply = self._sent(reply, writer=0)
        self.up += size
        return reply

    def _sent(self, message, writer):
        """(bytes, what the other side reads)."""
        began = time.process_time()
        object_id = message.object_id
        contents = {key: part.deflate() for key, part in self._nested(message).items()}
        written = time.process_time()
        size = sum(map(len, contents.values()))
        reads = time.process_time()
        found = self._inflate(object_id, contents)
        self.serialising_s[writer] += written - began
        self.serialising_s[1 - writer] += time.process_time() - reads
        # As Flower's own grid does it: the answer names this id.
        found.metadata.__dict__["_message_id"] = object_id
        return size, found
