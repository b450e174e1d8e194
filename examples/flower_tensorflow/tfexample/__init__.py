"""Flower's TensorFlow quickstart: docs/engines.md shows which lines FLQ adds."""
