"""The book's own package: the studies behind its numbers, their results, the claims and the figures.

It stands on `mmoe_lib` and on the checkout's `data/`, and is never installed: chapters run in `book/`, where
`import companion` finds it, and `make environment` tells the checkout's `.venv` of it.
"""
