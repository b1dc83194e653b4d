"""The `semflow` command."""

import os

# Threads that wait without spinning leave the cores to the hash grids' own; it must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
