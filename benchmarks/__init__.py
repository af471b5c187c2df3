"""RankLoom's benchmarks: `python -m benchmarks.run NAME`, results in `benchmarks/results/`."""
