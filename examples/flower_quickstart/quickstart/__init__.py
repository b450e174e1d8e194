"""Flower's PyTorch quickstart: docs/engines.md shows which lines FLQ adds."""
