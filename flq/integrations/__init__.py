"""FLQ inside other systems, each an extra: torch.py for PyTorch models at FLQ's door, flower.py for
FLQ's updates on Flower, whose two ends are exchange_server.py and exchange_node.py. Nothing in FLQ
imports this package.
"""
