"""The `semflow` command."""

import os

# Threads that soon stop spinning leave the cores to the hash grids' own; it must be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
