"""FLQ inside other systems, each an extra: torch.py for PyTorch models at FLQ's door, flower.py and
nvflare.py for FLQ's messages on those engines. Nothing in FLQ imports this package.
"""
