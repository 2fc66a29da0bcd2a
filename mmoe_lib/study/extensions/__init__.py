"""The studies of chapter 6: other gates, regularised gates, layered extraction, many tasks, rare labels.

`models` names what is compared, all at one size. `gates` compares on the synthetic tasks at p = 0.5, `layers` on the
correlations of the PLE paper, `tasks` with more and more tasks, `census` on Census-Income; `rare_labels` takes
positives of one task away and tries what is said to help.
"""
