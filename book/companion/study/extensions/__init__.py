"""The studies of chapter 6: other gates, regularised gates, layered extraction, many tasks, unequal tasks.

`models` names what is compared, all at one size. `gates` compares on the synthetic tasks at p = 0.5, on the
correlations of the PLE paper, and with more and more tasks; `census` on Census-Income. Of unequal tasks,
`rare_labels` takes positives of one away, and `units` measures one in another unit; both try what is said to help.
"""
