"""Reports: pages, pictures and tables made of a folder of results."""
