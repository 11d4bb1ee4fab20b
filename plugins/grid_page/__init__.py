"""The block grid's page: what Airflow's API server shows of TinyTags' runs, and what it lets a user do to blocks."""
