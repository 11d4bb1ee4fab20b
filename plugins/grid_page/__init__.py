"""The block grid: a page of Airflow's API server that shows the blocks of runs, and lets users act on them."""
