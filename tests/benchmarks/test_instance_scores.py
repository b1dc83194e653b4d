"""How found instances are paired with true ones in `benchmarks.instances`."""

import numpy as np

from benchmarks.instances import paired


def test_instances_are_paired_over_all_frames_one_to_one() -> None:
    """7 keeps its id in three of four pixels; of 9's two pieces the larger one counts; 3 has none left."""
    truth = np.array([[[7, 7, 9, 9, 9, 3]], [[7, 7, 9, 9, 9, 3]]])
    found = np.array([[[5, 5, 2, 2, 4, 0]], [[5, 2, 2, 2, 4, 0]]])
    pairs = paired(truth, found)
    assert pairs[7] == (5, 3 / 4) and pairs[9] == (2, 4 / 7) and pairs[3] == (4, 0.0)
    assert paired(truth, np.zeros_like(truth)) == {3: (0, 0.0), 7: (0, 0.0), 9: (0, 0.0)}
