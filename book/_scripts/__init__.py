"""What `make` runs: set up the environment, execute the chapters, build the pages, refresh stored outputs."""
