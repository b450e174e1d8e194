"""FLQ inside other systems, each an extra: torch.py for PyTorch models at FLQ's door; flower.py and
nvflare.py for FLQ's updates on Flower and on NVIDIA FLARE, around the same two ends,
exchange_server.py and exchange_node.py. Nothing in FLQ imports this package.
"""
