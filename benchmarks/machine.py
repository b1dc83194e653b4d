"""What a figure was measured on."""

from semflow_nerfstudio.benchmarking.machine import commit, describe, processor_name

__all__ = ["commit", "describe", "processor_name"]
