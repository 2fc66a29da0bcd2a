"""Benchmarks: what training and serving cost on the machine they run on; a file a question.

`python -m companion.benchmarks NAME` measures one; its stored rows are `data/results/benchmark*.csv`.
"""
