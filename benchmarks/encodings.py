"""`python -m benchmarks.encodings`: see `semflow_nerfstudio.benchmarking.encodings`."""

from semflow_nerfstudio.benchmarking.encodings import main

if __name__ == "__main__":
    main()
