"""Experiments on a Ray cluster."""

from __future__ import annotations

from vlm_tune.experiments.on_ray.backend import RayBackend

__all__ = ["RayBackend"]
