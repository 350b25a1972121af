"""Generators with ground truth, and real networks small enough to ship."""
